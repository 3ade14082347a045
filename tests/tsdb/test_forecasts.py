"""Forecasts: values and intervals against what a constructed series does next."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

from sage_flink.common import PipelineError, Rejected
from sage_flink.tsdb import Forecast, Point, forecast

pytestmark = pytest.mark.slow


def series(values: Any) -> list[tuple[int, float]]:
    return [(60 * n, float(value)) for n, value in enumerate(values)]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.floats(-5, 5), st.floats(-1e6, 1e6), st.integers(0, 10**6))
def test_a_line_goes_on_at_its_slope(slope: float, level: float, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.01, 60)
    line = level + slope * np.arange(65)

    found = forecast(series(line[:60] + noise), 5, trend="linear")

    assert [one.time for one in found] == [60 * n for n in range(60, 65)]
    assert [one.value for one in found] == pytest.approx(line[60:].tolist(), abs=0.3)


def test_a_season_goes_on() -> None:
    wave = 50 + 10 * np.sin(2 * np.pi * np.arange(144) / 24)
    values = wave + np.random.default_rng(1).normal(0, 0.1, 144)

    found = forecast(series(values[:120]), 24, period=24, trend="none")

    assert [one.value for one in found] == pytest.approx(wave[120:].tolist(), abs=0.6)
    assert all(one.low < one.value < one.high for one in found)


@pytest.mark.parametrize("level", [0.5, 0.9])
def test_an_interval_holds_as_many_values_as_it_says(level: float) -> None:
    inside = []
    for seed in range(100):
        steps = np.random.default_rng(seed).normal(size=101)
        walk = np.cumsum(steps)  # for which the last value and its steps are the best forecast
        (one,) = forecast(series(walk[:100]), 1, trend="none", level=level)
        inside.append(one.low <= walk[100] <= one.high)

    assert np.mean(inside) == pytest.approx(level, abs=0.1)


def test_intervals_are_those_of_statsmodels_and_widen() -> None:
    values = np.cumsum(np.random.default_rng(3).normal(size=80))

    found = forecast(series(values), 6, level=0.8)

    scaled = (pd.Series(values) - values.mean()) / values.std(ddof=1)
    model = ETSModel(scaled, trend="add", damped_trend=True, initialization_method="heuristic")
    frame = model.fit(disp=False).get_prediction(80, 85).summary_frame(alpha=0.2)
    truth = frame * values.std(ddof=1) + values.mean()
    assert [one.low for one in found] == pytest.approx(truth["pi_lower"].tolist())
    assert [one.high for one in found] == pytest.approx(truth["pi_upper"].tolist())
    widths = [one.high - one.low for one in found]
    assert widths == sorted(widths)


def test_equal_values_go_on_without_a_doubt() -> None:
    points = [Point("m", {}, {"celsius": 3.5}, 10 * n) for n in range(12)]

    assert forecast(points, 2, "celsius") == [
        Forecast(120, 3.5, 3.5, 3.5),
        Forecast(130, 3.5, 3.5, 3.5),
    ]


@pytest.mark.parametrize(
    ("count", "options", "error", "reason"),
    [
        (9, {}, Rejected, "needs 10 values or more, got 9"),
        (20, {"period": 12}, Rejected, "needs 24 values or more, got 20"),
        (20, {"steps": 0}, PipelineError, "steps must be at least 1"),
        (20, {"steps": 10_001}, PipelineError, "steps must be at most 10000"),
        (20, {"period": 1}, PipelineError, "period must be at least 2"),
        (20, {"trend": "up"}, PipelineError, "trend must be one of none, linear, damped"),
        (20, {"level": 1}, PipelineError, "level must be a probability between 0 and 1"),
    ],
)
def test_what_has_no_forecast_is_refused(count: int, options: Any, error: Any, reason: str) -> None:
    with pytest.raises(error, match=f"forecast: {reason}"):
        forecast(series(range(count)), **{"steps": 1, **options})


def test_a_gap_is_refused() -> None:
    with pytest.raises(Rejected, match="forecast: needs even times: 720 is 120 after"):
        forecast([pair for pair in series(range(20)) if pair[0] != 660], 1)
