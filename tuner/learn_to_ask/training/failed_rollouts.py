"""Leaves rollouts without a reward out of the update, as an operator of Trinity's experience pipeline."""

import copy
import math
from collections.abc import Sequence

from trinity.buffer.operators import ExperienceOperatorV1
from trinity.common.experience import Experience, group_by

# A grader that fails on more than this share of a step's rollouts is down: no update is better than a blind one.
_TOLERATED = 0.5
MISSING = "missing-"  # begins the task of a rollout that is made up


def fill_in(rewards: Sequence[float]) -> list[float]:
    """Replaces the missing rewards of a group by the mean of the others, whose advantage in GRPO is 0.

    Args:
        rewards: Of one group; NaN where grading failed.

    Returns:
        As many finite numbers; all 0 when none was known.
    """
    known = [reward for reward in rewards if math.isfinite(reward)]
    mean = math.fsum(known) / len(known) if known else 0.0
    return [reward if math.isfinite(reward) else mean for reward in rewards]


class LeaveOutFailedRollouts(ExperienceOperatorV1):  # type: ignore[misc]  # Trinity has no type hints
    """Makes every step a full batch in which failed rollouts have no advantage.

    A rollout whose grading failed arrives with the reward NaN. Trinity would train on it, and a group that failed
    altogether does not arrive at all: the trainer would wait for the missing part of its batch, the explorer for
    the trainer, until one of them gives up.
    """

    def __init__(self, rollouts: int) -> None:
        """Sets the size of a whole step.

        Args:
            rollouts: Of a step: batch size times group size.
        """
        self.rollouts = rollouts

    async def process(self, exps: list[Experience]) -> tuple[list[Experience], dict[str, float]]:
        """Fills in the rewards, then the step.

        Raises:
            RuntimeError: When more than half of the rollouts failed, which ends the run resumably.
        """
        ungraded = 0
        for group in group_by(exps, "task").values():
            rewards = [math.nan if exp.reward is None else exp.reward for exp in group]
            ungraded += sum(not math.isfinite(reward) for reward in rewards)
            for exp, reward in zip(group, fill_in(rewards), strict=True):
                exp.reward = reward
        missing = max(self.rollouts - len(exps), 0)
        if ungraded + missing > _TOLERATED * self.rollouts:
            raise RuntimeError(
                f"{ungraded} of {self.rollouts} rollouts of this step could not be graded and {missing} failed: "
                "see the warnings of the judge and the workflow above"
            )
        blanks = [_blank(exps[index % len(exps)], index) for index in range(missing)]
        return exps + blanks, {"ungraded_rollouts": ungraded, "missing_rollouts": missing}


def _blank(model: Experience, number: int) -> Experience:
    """A copy that is a group of its own with reward 0, which GRPO gives the advantage 0."""
    blank = copy.deepcopy(model)
    blank.eid.task = f"{MISSING}{number}"
    blank.reward = 0.0
    return blank
