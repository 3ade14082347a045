"""Values that do not fit the season and the trend of their series, by STL of statsmodels.

For the result of a query: a decomposition needs whole periods on both sides of a value. On a
stream, a key of the sensor and the phase, such as its hour of the day, in front of
:class:`sage_flink.operators.RobustZScore` compares each value with those of the same phase.

>>> from random import Random
>>> noise = Random(1)
>>> daily = [(3600 * n, n % 24 + noise.gauss(0, 0.3)) for n in range(24 * 7)]
>>> daily[100] = (360_000, 15.0)  # at four in the morning
>>> [one.time for one in seasonal_residuals(daily, 24) if abs(one.score) > 9]
[360000]
"""

from typing import Any, NamedTuple

from sage_flink.common.errors import Rejected
from sage_flink.common.validation import require_whole_number
from sage_flink.tsdb.analysis_packages import analysis_packages
from sage_flink.tsdb.anomalies import robust_z_score
from sage_flink.tsdb.series import Result, require_even, series_of

#: The least scale of a residual, as a part of the series' range: what is below is no anomaly.
_SCALE_MIN = 1e-6


class SeasonalValue(NamedTuple):
    """A value of a series as trend + season + residual, and the robust z-score of the residual."""

    time: int
    value: float
    trend: float
    season: float
    residual: float
    score: float


def seasonal_residuals(
    found: Result, period: int, field: str = "", *, robust: bool = True
) -> list[SeasonalValue]:
    """The decomposition of each value, by time; ``period`` counts values, such as 24 of hours.

    The season is the same in every period. The score compares a residual with those of the whole
    series. With ``robust`` an anomaly has little weight in the trend and the season.

    Raises:
        PipelineError: ``period`` is less than 2.
        Rejected: ``found`` is no series, has gaps, or fewer values than two periods.
        ConfigError: statsmodels is not installed.

    Source: Cleveland et al., STL: A Seasonal-Trend Decomposition Procedure Based on Loess, 1990.
    """
    require_whole_number("seasonal_residuals", "period", period, least=2)
    series = series_of(found, field)
    if len(series) < 2 * period:
        needed = f"two periods are {2 * period} values"
        raise Rejected(f"seasonal_residuals: {needed}, got {len(series)}")
    require_even("seasonal_residuals", series)
    with analysis_packages():
        import numpy as np
    values = np.array([value for _, value in series])
    least = _SCALE_MIN * float(values.max() - values.min())
    parts = _decompose(values, period, least if robust else None)
    residuals = [float(residual) for residual in parts.resid]
    return [
        SeasonalValue(
            time,
            value,
            float(parts.trend[place]),
            float(parts.seasonal[place]),
            residuals[place],
            robust_z_score(residuals[place], residuals, least),
        )
        for place, (time, value) in enumerate(series)
    ]


def _decompose(values: Any, period: int, robust_above: float | None) -> Any:
    """By STL; the fit is robust where a residual is above ``robust_above``."""
    with analysis_packages():
        from statsmodels.tsa.seasonal import STL
    # One season, R's s.window="periodic". With seasons that change, a robust fit of few periods may
    # keep an anomaly as the season of its phase: 14 of 150 in a week of hours, and 0 of 150 so.
    options = {"period": period, "seasonal": 10 * len(values) + 1, "seasonal_deg": 0}
    parts = STL(values, **options).fit()
    if robust_above is not None and abs(parts.resid).max() > robust_above:
        parts = STL(values, **options, robust=True).fit()
    return parts
