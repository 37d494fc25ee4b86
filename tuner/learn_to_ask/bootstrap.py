"""Bootstrap intervals of the metrics, resampling sessions (spec section 8)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.learn_to_ask.metrics import METRICS, ScoredRollout

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95% interval around an estimate."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside."""
        return self.low > 0 or self.high < 0


def session_bootstrap(
    evaluations: Sequence[Sequence[ScoredRollout]], *, seed: int = 0, resamples: int = RESAMPLES
) -> dict[str, list[npt.NDArray[np.float64]]]:
    """Resampled means of every metric, the same sessions drawn for every evaluation.

    Rollouts of one sample and samples of one dialogue are not independent, so whole sessions are drawn.
    A mean is a ratio of sums over sessions; drawing session s w_s times makes it
    sum(w_s * value_s) / sum(w_s * count_s), one matrix product for all resamples.

    Args:
        evaluations: The (sample, rollout) pairs of each evaluation; paired when there are several.
        seed: Of the draws.
        resamples: Number of draws.

    Returns:
        For each metric one array of `resamples` means for each evaluation, NaN where a draw holds no pair.
    """
    sessions = sorted({rollout.session_id for rollouts in evaluations for rollout in rollouts})
    position = {session: index for index, session in enumerate(sessions)}
    draws = np.random.default_rng(seed).multinomial(
        len(sessions), np.full(len(sessions), 1 / len(sessions)), size=resamples
    )
    means: dict[str, list[npt.NDArray[np.float64]]] = {}
    for key, metric in METRICS.items():
        means[key] = []
        for rollouts in evaluations:
            sums, counts = np.zeros(len(sessions)), np.zeros(len(sessions))
            for rollout in rollouts:
                value = metric.value(rollout)
                if value is not None:
                    sums[position[rollout.session_id]] += value
                    counts[position[rollout.session_id]] += 1
            with np.errstate(invalid="ignore"):
                means[key].append((draws @ sums) / (draws @ counts))
    return means


def interval(estimate: float, resampled: npt.NDArray[np.float64]) -> Interval:
    """The percentile interval of an estimate.

    Args:
        estimate: The metric over all pairs.
        resampled: Its resampled values; NaN is left out.
    """
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Interval(estimate, float(low), float(high))
