"""Means of the interview metrics with their intervals; a session has one interview."""

from collections.abc import Mapping, Sequence

import numpy as np

from tuner.learn_to_ask.evaluation.bootstrap import Estimate, estimate_means, session_totals
from tuner.learn_to_ask.evaluation.interview_metrics import METRICS


def estimate(measured: Sequence[Mapping[str, float | None]]) -> dict[str, Estimate]:
    """Every metric's mean with its 95% interval.

    Args:
        measured: Of each interview, see `interview_metrics.measure`.

    Returns:
        An estimate for each key of `METRICS`, without a value for a metric that is about no interview.
    """
    rows = [[np.nan if one[key] is None else one[key] for key in METRICS] for one in measured]
    values = np.array(rows, dtype=np.float64).reshape(len(measured), len(METRICS))
    totals = session_totals(np.arange(len(measured)), values, session_count=len(measured))
    return dict(zip(METRICS, estimate_means(totals), strict=True))
