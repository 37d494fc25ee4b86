"""How many turns too early a stop comes, as far as a log tells."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.learn_to_ask.evaluation.bootstrap import FloatArray, IntArray


@dataclass(frozen=True, slots=True)
class StopMetric:
    """A mean over rollouts.

    Attributes:
        title: For tables.
        meaning: What it is, in one sentence with its range.
    """

    title: str
    meaning: str


STOP_METRICS = {
    "turns_too_early": StopMetric(
        "Turns too early",
        "turns from a stop where asking is right to where the log stops, 1 or more; over such stops",
    ),
    "turns_early": StopMetric(
        "Turns early, all stops", "the same with 0 for a stop where the log stops, 0 or more; over all stops"
    ),
    "late": StopMetric(
        "Late",
        "the share of rollouts that ask where the log stops, 0 to 1: late by 1 turn or more, how many no log can tell",
    ),
}


def turns_left(sessions: Sequence[str], depths: Sequence[int], should_stop: Sequence[bool]) -> list[int | None]:
    """For every sample how many turns later its session stops, a turn being one in which the user speaks.

    Samples that were dropped in between count, because the contexts of later ones hold them.

    Args:
        sessions: Of samples in any order.
        depths: How often the user has spoken in their contexts.
        should_stop: Whether the log stops there.

    Returns:
        0 where the log stops, else the turns up to the first later sample where it does; `None` where there is no such
        sample, as in a session that was cut.
    """
    stops: dict[str, list[int]] = defaultdict(list)
    for session, depth, stop in zip(sessions, depths, should_stop, strict=True):
        if stop:
            stops[session].append(depth)
    return [
        0 if stop else min((end - depth for end in stops.get(session, ()) if end > depth), default=None)
        for session, depth, stop in zip(sessions, depths, should_stop, strict=True)
    ]


def timing_values(left: FloatArray, stopped: npt.NDArray[np.bool_]) -> FloatArray:
    """What each rollout adds to each of `STOP_METRICS`, NaN where a metric is not about it.

    Args:
        left: For each rollout the `turns_left` of its sample, NaN for none.
        stopped: Whether it stopped.
    """
    return np.column_stack(
        [
            np.where(stopped & (left > 0), left, np.nan),
            np.where(stopped, left, np.nan),
            np.where(left == 0, ~stopped, np.nan),
        ]
    ).astype(np.float64)


def early_counts(left: FloatArray, stopped: npt.NDArray[np.bool_]) -> dict[int, int]:
    """Turns too early, 0 for in time -> how many stops came so; without those in sessions whose end is not known."""
    turns: IntArray = left[stopped & ~np.isnan(left)].astype(np.int64)
    values, counts = np.unique(turns, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))
