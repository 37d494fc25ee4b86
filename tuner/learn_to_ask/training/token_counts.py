"""Counts the tokens of a step as an operator of Trinity's experience pipeline, which logs them."""

from trinity.buffer.operators import ExperienceOperatorV1
from trinity.common.experience import Experience

from tuner.learn_to_ask.training.failed_rollouts import MISSING
from tuner.learn_to_ask.training.money import GRADER_METRICS, Tokens


class CountTokens(ExperienceOperatorV1):  # type: ignore[misc]  # Trinity has no type hints
    """Counts what a step's rollouts took and what its update is going to take; changes nothing.

    Rollouts that failed altogether leave nothing to count, and made-up ones in their place cost only the update.
    """

    def __init__(self, training_passes: int, reference: bool) -> None:
        """Sets how an update reads its rollouts.

        Args:
            training_passes: How often each goes through the model for an update.
            reference: Whether the reference model reads each once more.
        """
        self.training_passes = training_passes
        self.reference = reference

    async def process(self, exps: list[Experience]) -> tuple[list[Experience], dict[str, float]]:
        """Passes the rollouts on, with the counts as metrics."""
        prompt = repeated = response = 0
        grader = dict.fromkeys(GRADER_METRICS, 0.0)
        prompts_seen: set[str] = set()
        for exp in exps:
            task = str(exp.eid.task)  # Trinity's are numbers
            if task.startswith(MISSING):
                continue
            prompt += exp.prompt_length
            repeated += exp.prompt_length if task in prompts_seen else 0
            response += len(exp.tokens) - exp.prompt_length
            prompts_seen.add(task)
            for name in grader:
                grader[name] += (exp.metrics or {}).get(name, 0.0)
        trained = sum(len(exp.tokens) for exp in exps)
        counted = Tokens(
            prompt=prompt,
            repeated_prompt=repeated,
            response=response,
            reference=trained if self.reference else 0,
            training=trained * self.training_passes,
            grader_prompt=round(grader["grader_prompt_tokens"]),
            grader_answer=round(grader["grader_answer_tokens"]),
        )
        return exps, counted.metrics()
