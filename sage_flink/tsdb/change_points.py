"""Where the mean of a series changes, by ruptures; for a stream: operators.PageHinkley.

>>> steps = [(60 * n, 20.0 + n % 2 + (5 if n >= 30 else 0)) for n in range(60)]
>>> change_points(steps)
[ChangePoint(time=1800, before=20.5, after=25.5)]
"""

import math
from itertools import pairwise
from statistics import fmean, median
from typing import NamedTuple

from sage_flink.common.errors import Rejected
from sage_flink.common.validation import require, require_whole_number
from sage_flink.tsdb.analysis_packages import analysis_packages
from sage_flink.tsdb.anomalies import SIGMAS_OF_MAD, SIGMAS_OF_MEAN_DEVIATION
from sage_flink.tsdb.series import Result, finite_number, series_of

#: The time that it takes grows with the square of the number of values: seconds here.
VALUES_MAX = 10_000


class ChangePoint(NamedTuple):
    """The time of the first value after a change, and the means of the segments at its sides."""

    time: int
    before: float
    after: float


def change_points(
    found: Result, field: str = "", *, penalty: float = 3.0, values_min: int = 2
) -> list[ChangePoint]:
    """The changes of the mean, by time: the segments of the least squared error.

    Each change costs ``penalty`` times the logarithm of the number of values, in variances of the
    noise, so a larger penalty finds fewer. The noise is estimated from the differences of
    neighbours, which is uncertain below some dozens of values. A segment has ``values_min`` values
    at least. The times may be uneven.

    Raises:
        PipelineError: ``penalty`` is not positive, or ``values_min`` less than 1.
        Rejected: ``found`` is no series, or has more than 10,000 values.
        ConfigError: ruptures is not installed.

    Source: Killick et al., Optimal Detection of Changepoints With a Linear Computational Cost,
    2012 (PELT). A penalty of 2 is that of BIC, for one place and one mean.
    """
    number = finite_number(penalty)
    require(number is not None and number > 0, "change_points", "penalty", "above 0", penalty)
    require_whole_number("change_points", "values_min", values_min)
    series = series_of(found, field)
    if len(series) > VALUES_MAX:
        raise Rejected(f"change_points: at most {VALUES_MAX} values, got {len(series)}")
    values = [value for _, value in series]
    noise = _noise(values)
    if len(values) < 2 * values_min or noise == 0:
        return []
    with analysis_packages():
        import numpy as np
        import ruptures
    scaled = (np.array(values) - median(values)) / noise
    search = ruptures.KernelCPD(kernel="linear", min_size=values_min)
    ends = search.fit(scaled.reshape(-1, 1)).predict(pen=penalty * math.log(len(values)))
    places = [0, *map(int, ends)]
    means = [fmean(values[start:end]) for start, end in pairwise(places)]
    starts = places[1:-1]
    sides = zip(starts, means, means[1:], strict=False)
    return [ChangePoint(series[start][0], before, after) for start, before, after in sides]


def _noise(values: list[float]) -> float:
    """The standard deviation of the values around their mean, whatever steps it takes."""
    steps = [abs(after - before) for before, after in pairwise(values)]
    if not steps:
        return 0.0
    spread = SIGMAS_OF_MAD * median(steps) or SIGMAS_OF_MEAN_DEVIATION * fmean(steps)
    return spread / math.sqrt(2)
