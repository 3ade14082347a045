"""Forecasts of a series with intervals, by exponential smoothing (ETS) of statsmodels.

>>> line = [(60 * n, 20.0 + n + n % 2 / 10) for n in range(40)]
>>> [(one.time, round(one.value)) for one in forecast(line, 2)]
[(2400, 60), (2460, 61)]
"""

import math
import warnings
from typing import Any, Literal, NamedTuple, get_args

from sage_flink.common.errors import Rejected
from sage_flink.common.validation import require, require_whole_number
from sage_flink.tsdb.analysis_packages import analysis_packages
from sage_flink.tsdb.series import Pair, Result, finite_number, require_even, series_of

Trend = Literal["none", "linear", "damped"]
#: What the estimate of a level and a trend needs.
VALUES_MIN = 10
STEPS_MAX = 10_000


class Forecast(NamedTuple):
    """A value to come, and the interval in which it is with the probability ``level``."""

    time: int
    value: float
    low: float
    high: float


def forecast(
    found: Result,
    steps: int,
    field: str = "",
    *,
    period: int | None = None,
    trend: Trend = "damped",
    level: float = 0.95,
) -> list[Forecast]:
    """The next ``steps`` values, as far apart as those of the series.

    With ``period`` there is a season of that many values, such as 24 of hours. A damped trend fades
    with time, a linear one continues. The intervals are those of the model with normal errors: they
    are too narrow where the series does not behave as before.

    Raises:
        PipelineError: a setting is out of range.
        Rejected: ``found`` is no series, has gaps, fewer than ten values, or than two periods.
        ConfigError: statsmodels is not installed.

    Source: Hyndman et al., Forecasting with Exponential Smoothing, 2008: ETS(A, A or Ad, A).
    """
    _check_settings(steps, period, trend, level)
    series = series_of(found, field)
    needed = max(VALUES_MIN, 2 * (period or 0))
    if len(series) < needed:
        raise Rejected(f"forecast: needs {needed} values or more, got {len(series)}")
    step = require_even("forecast", series)
    rows = _predict(series, steps, period, trend, level)
    last = series[-1][0]
    made = [Forecast(last + (n + 1) * step, *map(float, row)) for n, row in enumerate(rows)]
    if not all(math.isfinite(one.low) and math.isfinite(one.high) for one in made):
        raise Rejected("forecast: the model has no finite forecast for this series")
    return made


def _check_settings(steps: object, period: object, trend: object, level: object) -> None:
    require_whole_number("forecast", "steps", steps)
    known = isinstance(steps, int) and steps <= STEPS_MAX
    require(known, "forecast", "steps", f"at most {STEPS_MAX}", steps)
    if period is not None:
        require_whole_number("forecast", "period", period, least=2)
    trends = get_args(Trend)
    require(trend in trends, "forecast", "trend", f"one of {', '.join(trends)}", trend)
    number = finite_number(level)
    known = number is not None and 0 < number < 1
    require(known, "forecast", "level", "a probability between 0 and 1", level)


def _predict(
    series: list[Pair], steps: int, period: int | None, trend: Trend, level: float
) -> list[Any]:
    """Value, low and high of each step."""
    with analysis_packages():
        import pandas as pd
        from statsmodels.tsa.exponential_smoothing.ets import ETSModel
    values = pd.Series([value for _, value in series])
    middle, scale = values.mean(), values.std()
    if not scale > abs(middle) * 1e-12:
        return [(middle, middle, middle)] * steps
    model = ETSModel(
        (values - middle) / scale,
        error="add",
        trend=None if trend == "none" else "add",
        damped_trend=trend == "damped",
        seasonal="add" if period else None,
        seasonal_periods=period,
        # Estimated initial states take a hundred times as long, and differ in the first period.
        initialization_method="heuristic",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an optimum that is not exact is good enough
        fitted = model.fit(disp=False)
        ahead = fitted.get_prediction(len(values), len(values) + steps - 1)
        frame = ahead.summary_frame(alpha=1 - level) * scale + middle
    return [tuple(row) for row in frame[["mean", "pi_lower", "pi_upper"]].to_numpy()]
