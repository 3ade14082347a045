"""Anomalies of a series: how far each value is from what was usual before it. Pure.

>>> usual = [(60 * n, 20.0 + n % 3) for n in range(30)]
>>> scored = robust_z_scores([*usual, (1800, 45.0)])
>>> [(one.time, round(one.score, 1)) for one in scored if abs(one.score) > 5]
[(1800, 16.2)]
"""

from collections import deque
from collections.abc import Sequence
from statistics import fmean, median
from typing import NamedTuple

from sage_flink.common.validation import require, require_whole_number
from sage_flink.tsdb.series import Result, finite_number, series_of

#: How many standard deviations of a normal distribution a MAD, and a mean deviation, of 1 are.
SIGMAS_OF_MAD = 1.482602218505602
SIGMAS_OF_MEAN_DEVIATION = 1.2533141373155001
#: The size of a score at most: it is infinite behind a history of equal values.
SCORE_MAX = 1e6
HISTORY_MAX = 1_000


class AnomalyScore(NamedTuple):
    """A value of a series with its score."""

    time: int
    value: float
    score: float


def robust_z_score(value: float, history: Sequence[float], scale_min: float = 0.0) -> float:
    """The signed distance of ``value`` from the median of ``history``, in standard deviations.

    The deviation is the MAD (median absolute deviation) times 1.4826; where more than half of the
    values are equal, the mean absolute deviation from the median times 1.2533; and ``scale_min`` at
    least. The size of a score is at most 1e6.

    Source: Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993; scipy's
    median_abs_deviation(scale="normal").
    """
    ordered = sorted(history)
    middle = median(ordered)
    deviations = [abs(one - middle) for one in ordered]
    scale = SIGMAS_OF_MAD * median(deviations) or SIGMAS_OF_MEAN_DEVIATION * fmean(deviations)
    distance, scale = value - middle, max(scale, scale_min)
    if abs(distance) >= SCORE_MAX * scale:
        return 0.0 if distance == 0 else SCORE_MAX if distance > 0 else -SCORE_MAX
    return distance / scale


def robust_z_scores(
    found: Result,
    field: str = "",
    *,
    history: int = 100,
    history_min: int = 10,
    scale_min: float = 0.0,
) -> list[AnomalyScore]:
    """The robust z-score of each value against the ``history`` values before it, by time.

    A value with fewer than ``history_min`` before it has the score 0. The scores are those that
    :class:`sage_flink.operators.RobustZScore` gives a stream.

    Raises:
        PipelineError: a length is out of range.
        Rejected: ``found`` is no series, see :func:`~sage_flink.tsdb.series.series_of`.
    """
    require_history("robust_z_scores", history, history_min, scale_min)
    before: deque[float] = deque(maxlen=history)
    scored = []
    for time, value in series_of(found, field):
        known = len(before) >= history_min
        score = robust_z_score(value, before, scale_min) if known else 0.0
        scored.append(AnomalyScore(time, value, score))
        before.append(value)
    return scored


def require_history(where: str, history: object, history_min: object, scale_min: object) -> None:
    """Check the settings of a robust z-score.

    Raises:
        PipelineError: ``history`` is not from 3 to 1,000, ``history_min`` not from 3 to it, or
            ``scale_min`` is negative.
    """
    require_whole_number(where, "history", history, least=3)
    require_whole_number(where, "history_min", history_min, least=3)
    assert isinstance(history, int)
    assert isinstance(history_min, int)
    require(history <= HISTORY_MAX, where, "history", f"at most {HISTORY_MAX}", history)
    require(history_min <= history, where, "history_min", "at most history", history_min)
    scale = finite_number(scale_min)
    require(scale is not None and scale >= 0, where, "scale_min", "0 or more", scale_min)
