"""How far a grader agrees with itself when it grades the same rollout more than once."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Agreement:
    """The reliability of one score.

    Attributes:
        rollouts: How many have at least two grades with this score; the rest is over them alone.
        exact: Share of pairs of grades of one rollout that are equal.
        mean_absolute_difference: Of the same pairs, in units of the score.
        alpha: Krippendorff's alpha for interval data: 1 is perfect agreement, 0 what chance would give; `None`
            when all grades of all rollouts are the same, for then there is nothing to tell apart.
    """

    rollouts: int
    exact: float | None
    mean_absolute_difference: float | None
    alpha: float | None


def agreement(ratings: npt.NDArray[np.float64]) -> Agreement:
    """Compares the grades of each rollout with one another.

    Args:
        ratings: Of shape (rollouts, grades), NaN where a rollout has no such grade or its grading failed.
    """
    ratings = ratings[(~np.isnan(ratings)).sum(axis=1) >= 2]
    if not len(ratings):
        return Agreement(0, None, None, None)
    differences = np.concatenate(
        [np.abs(ratings[:, left] - ratings[:, right]) for left, right in combinations(range(ratings.shape[1]), 2)]
    )
    differences = differences[~np.isnan(differences)]
    return Agreement(
        rollouts=len(ratings),
        exact=float((differences == 0).mean()),
        mean_absolute_difference=float(differences.mean()),
        alpha=_interval_alpha(ratings),
    )


def _interval_alpha(ratings: npt.NDArray[np.float64]) -> float | None:
    """1 - observed / expected disagreement, both as squared differences.

    K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), with the interval metric. The sum
    of squared differences over ordered pairs of m values is 2 * (m * sum of squares - square of the sum), which is
    2 * m * their squared deviations from the mean.

    Args:
        ratings: At least two grades in every row.
    """
    if np.nanmin(ratings) == np.nanmax(ratings):
        return None
    counts = (~np.isnan(ratings)).sum(axis=1)
    total = counts.sum()
    within = np.nansum((ratings - np.nanmean(ratings, axis=1, keepdims=True)) ** 2, axis=1)
    observed = (2 * counts * within / (counts - 1)).sum() / total
    expected = 2 * np.nansum((ratings - np.nanmean(ratings)) ** 2) / (total - 1)
    return float(1 - observed / expected)
