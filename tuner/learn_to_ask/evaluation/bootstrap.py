"""95% bootstrap intervals of means over rollouts, resampling sessions (spec section 8).

Rollouts of one sample and samples of one dialogue are not independent, so whole sessions are drawn. A mean over
rollouts is then a ratio of sums over sessions: drawing session s w_s times makes it
sum(w_s * value_s) / sum(w_s * count_s), a matrix product for all metrics and many resamples at once.

The plain percentile interval is too narrow when there are few sessions (simulated: it holds the truth in 91% of
cases with 12 sessions, 86% with 6). The percentiles are therefore moved outwards until a symmetric interval would
have the width of the t interval: "expanded percentile interval", T. C. Hesterberg, What Teachers Should Know About
the Bootstrap, The American Statistician 69 (2015), pages 371 to 386. It then holds the truth in 93% to 94% of cases
with 12 sessions, in 88% to 93% with 6.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RESAMPLES = 2000
SEED = 0
_CELLS = 4_000_000  # resamples x sessions held in memory at once, 8 bytes each, twice


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, or a difference of two means, with its 95% interval.

    Attributes:
        value: `None` when it is over no rollout.
        low: Lower end of the interval; `None` when fewer than two sessions have a say.
        high: Upper end.
        rollouts: How many rollouts it is over; of a difference, on the smaller side.
        sessions: How many sessions they come from; of a difference, on the smaller side.
    """

    value: float | None
    low: float | None
    high: float | None
    rollouts: int
    sessions: int


@dataclass(frozen=True, slots=True)
class SessionTotals:
    """What every session adds to every mean, arrays of shape (sessions, metrics).

    Attributes:
        sums: Of the values.
        counts: How many values there are.
    """

    sums: FloatArray
    counts: FloatArray

    def means(self) -> FloatArray:
        """The mean of every metric over all sessions, NaN where there is no value."""
        with np.errstate(invalid="ignore"):
            means: FloatArray = self.sums.sum(axis=0) / self.counts.sum(axis=0)
        return means


def session_totals(sessions: IntArray, values: FloatArray, *, session_count: int) -> SessionTotals:
    """Sums and counts by session.

    Args:
        sessions: For each rollout the position of its session, 0 to `session_count` - 1.
        values: Of shape (rollouts, metrics), NaN where a metric is not about a rollout.
        session_count: How many sessions there are.
    """
    present = ~np.isnan(values)
    filled = np.where(present, values, 0.0)

    def by_session(columns: npt.NDArray[np.generic]) -> FloatArray:
        totals = [np.bincount(sessions, weights=column, minlength=session_count) for column in columns.T]
        return np.stack(totals, axis=1).astype(np.float64)

    return SessionTotals(sums=by_session(filled), counts=by_session(present))


def estimate_means(totals: SessionTotals) -> list[Estimate]:
    """Every metric's mean with its interval."""
    [resampled] = _resampled_means([totals])
    return _estimates(totals.means(), resampled, [totals])


def estimate_differences(before: SessionTotals, after: SessionTotals) -> list[Estimate]:
    """Every metric's mean in `after` minus its mean in `before`, with the interval of the difference.

    Paired: the same sessions are drawn for both, so what they have in common cancels out.

    Args:
        before: Of the same sessions, in the same order, as `after`.
        after: Compared with it.
    """
    resampled_before, resampled_after = _resampled_means([before, after])
    difference = _exact(after.means() - before.means())
    return _estimates(difference, _exact(resampled_after - resampled_before), [before, after])


def _exact(differences: FloatArray) -> FloatArray:
    """Differences without the noise of floating point, which would make equal means better or worse."""
    rounded: FloatArray = np.round(differences, 12) + 0.0  # -0.0 becomes 0.0
    return rounded


def _estimates(values: FloatArray, resampled: FloatArray, sides: Sequence[SessionTotals]) -> list[Estimate]:
    """Values with the intervals that their resamples span."""
    rollouts = np.min([side.counts.sum(axis=0) for side in sides], axis=0)
    sessions = np.min([(side.counts > 0).sum(axis=0) for side in sides], axis=0)
    return [
        _estimate(float(value), column, rollouts=int(pairs), sessions=int(count))
        for value, column, pairs, count in zip(values, resampled.T, rollouts, sessions, strict=True)
    ]


def _estimate(value: float, resampled: FloatArray, *, rollouts: int, sessions: int) -> Estimate:
    """One value with its interval; a resample without any rollout, NaN, is left out."""
    if math.isnan(value):
        return Estimate(None, None, None, rollouts, sessions)
    if sessions < 2:
        return Estimate(value, None, None, rollouts, sessions)
    tail = _expanded_tail(sessions)
    low, high = np.quantile(resampled[~np.isnan(resampled)], [tail, 1 - tail])
    return Estimate(value, float(low), float(high), rollouts, sessions)


def _resampled_means(sides: Sequence[SessionTotals]) -> list[FloatArray]:
    """The means of `RESAMPLES` draws of sessions, one array of shape (resamples, metrics) for each side."""
    columns = np.hstack([array for side in sides for array in (side.sums, side.counts)])
    drawn = np.concatenate([weights @ columns for weights in _weights(len(columns))])
    totals = np.split(drawn, 2 * len(sides), axis=1)
    with np.errstate(invalid="ignore"):
        return [sums / counts for sums, counts in zip(totals[::2], totals[1::2], strict=True)]


def _weights(sessions: int) -> Iterator[FloatArray]:
    """How often each session is drawn, in blocks of resamples that fit into memory."""
    random = np.random.default_rng(SEED)
    block = max(1, min(RESAMPLES, _CELLS // max(1, sessions)))
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        draws = random.integers(0, sessions, size=(rows, sessions)) if sessions else np.zeros((rows, 0), np.int64)
        draws += np.arange(rows)[:, None] * sessions
        yield np.bincount(draws.ravel(), minlength=rows * sessions).reshape(rows, sessions).astype(np.float64)


def _expanded_tail(sessions: int) -> float:
    """The share of resamples to leave out at each end, 0.025 for many sessions and less for few.

    Args:
        sessions: At least 2.
    """
    expansion = math.sqrt(sessions / (sessions - 1)) * _t_quantile(sessions - 1)
    return NormalDist().cdf(-expansion)


def _t_quantile(freedom: int) -> float:
    """The 0.975 quantile of Student's t distribution, right to 0.2%.

    Exact for 1 and 2 degrees of freedom, else M. Abramowitz and I. A. Stegun, Handbook of Mathematical Functions,
    formula 26.7.5.
    """
    if freedom == 1:
        return math.tan(math.pi * 0.475)
    if freedom == 2:
        return 0.95 * math.sqrt(2 / (4 * 0.975 * 0.025))
    z = NormalDist().inv_cdf(0.975)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + math.fsum(term / float(freedom) ** power for power, term in enumerate(terms, start=1))
