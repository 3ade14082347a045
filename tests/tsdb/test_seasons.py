"""Seasonal residuals: against constructed series, numpy and statsmodels."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.tsa.seasonal import STL

from sage_flink.common import PipelineError, Rejected
from sage_flink.tsdb import Aggregate, seasonal_residuals


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(2, 6), st.booleans(), st.integers(0, 10**6))
def test_parts_are_those_of_statsmodels_for_a_pandas_series_and_their_sum_is_the_value(
    period: int, periods: int, robust: bool, seed: int
) -> None:
    values = np.random.default_rng(seed).normal(size=period * periods + 1)

    found = seasonal_residuals(list(enumerate(values.tolist())), period, robust=robust)

    window = 10 * len(values) + 1  # as of R, where the season is the same in every period
    series = pd.Series(values)
    truth = STL(series, period=period, seasonal=window, seasonal_deg=0, robust=robust).fit()
    assert [one.trend for one in found] == pytest.approx(truth.trend.tolist())
    assert [one.season for one in found] == pytest.approx(truth.seasonal.tolist())
    assert [one.value for one in found] == values.tolist()
    sums = [one.trend + one.season + one.residual for one in found]
    assert sums == pytest.approx(values.tolist())
    residuals = truth.resid.to_numpy()
    mad = np.median(np.abs(residuals - np.median(residuals))) * 1.482602218505602
    if mad > 1e-6 * np.ptp(values):
        scores = (residuals - np.median(residuals)) / mad
        assert [one.score for one in found] == pytest.approx(scores.tolist())


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.integers(30, 130), st.sampled_from([-1, 1]))
def test_an_injected_anomaly_has_the_largest_score(seed: int, place: int, sign: int) -> None:
    random, hours = np.random.default_rng(seed), np.arange(168)
    values = 10 * np.sin(2 * np.pi * hours / 24) + 0.05 * hours + random.normal(0, 0.3, 168)
    values[place] += sign * 8  # less than the season's amplitude: no limit of the value finds it
    windows = [Aggregate({}, 3600 * int(h), {"mean": float(v)}) for h, v in enumerate(values)]

    found = seasonal_residuals(windows, 24)

    worst = max(found, key=lambda one: abs(one.score))
    assert worst.time == 3600 * place
    assert worst.score * sign > 5
    others = [one for one in found if one is not worst]
    assert max(abs(one.residual) for one in others) < abs(worst.residual) / 3


def test_what_repeats_exactly_has_no_anomaly() -> None:
    found = seasonal_residuals([(n, float(n % 7) + 3 * n) for n in range(70)], 7)

    assert max(abs(one.residual) for one in found) < 1e-6
    values = [(n, 200.0 if n == 30 else float(n % 7) + 3 * n) for n in range(70)]
    assert [one.time for one in seasonal_residuals(values, 7) if abs(one.score) > 3] == [30]
    assert abs(seasonal_residuals([(n, 2.0) for n in range(14)], 7)[5].residual) < 1e-9


@pytest.mark.parametrize(
    ("series", "period", "error", "reason"),
    [
        ([(n, 1.0) for n in range(13)], 7, Rejected, "two periods are 14 values, got 13"),
        ([(n + (n > 3), 1.0) for n in range(20)], 7, Rejected, "5 is 2 after the value before it"),
        ([], 7, Rejected, "two periods are 14 values, got 0"),
        ([(0, 1.0)], 1, PipelineError, "period must be at least 2"),
        ([(0, 1.0)], 2.5, PipelineError, "period must be a whole number"),
    ],
)
def test_what_has_no_season_is_refused(series: Any, period: Any, error: Any, reason: str) -> None:
    with pytest.raises(error, match=f"seasonal_residuals: .*{reason}"):
        seasonal_residuals(series, period)
