"""How figures are distributed before and after the curation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """A figure of all sessions and of those that are kept.

    Attributes:
        title: What is counted.
        labels: Of the bins: a number, or the first and the last that are in it.
        before: Sessions in each bin.
        after: Those of them that are kept.
        quantiles_before: The 5%, 50% and 95% quantile.
        quantiles_after: The same of those that are kept; empty when none is.
    """

    title: str
    labels: list[str]
    before: list[int]
    after: list[int]
    quantiles_before: list[float]
    quantiles_after: list[float]


def distribution(title: str, values: Sequence[int], kept: Sequence[bool]) -> Distribution:
    """Sorts a figure into bins of equal width; the last takes the highest hundredth, however far up it goes.

    Args:
        title: What is counted.
        values: For each session, at least one.
        kept: For each session, whether it is kept.
    """
    figures, mask = np.asarray(values, dtype=np.int64), np.asarray(kept, dtype=bool)
    low, high = int(figures.min()), int(figures.max())
    width = max(1, -(-(int(np.quantile(figures, 0.99)) - low + 1) // _BINS))
    count = min(_BINS, (high - low) // width + 1)
    places = np.minimum((figures - low) // width, count - 1)
    starts = [low + place * width for place in range(count)]
    ends = [*(start - 1 for start in starts[1:]), high]
    return Distribution(
        title=title,
        labels=[
            f"{start:,}" if start == end else f"{start:,}–{end:,}" for start, end in zip(starts, ends, strict=True)
        ],
        before=np.bincount(places, minlength=count).tolist(),
        after=np.bincount(places[mask], minlength=count).tolist(),
        quantiles_before=_quantiles(figures),
        quantiles_after=_quantiles(figures[mask]),
    )


def _quantiles(figures: NDArray[np.int64]) -> list[float]:
    """The 5%, 50% and 95% quantile, nothing of nothing."""
    return np.quantile(figures, (0.05, 0.5, 0.95)).tolist() if len(figures) else []
