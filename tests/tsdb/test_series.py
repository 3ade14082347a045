"""What a query returns, as one series of numbers."""

import math
import sys
from typing import Any

import pytest

from sage_flink.common import ConfigError, Rejected
from sage_flink.tsdb import (
    Aggregate,
    Point,
    change_points,
    forecast,
    robust_z_scores,
    seasonal_residuals,
)
from sage_flink.tsdb.series import series_of


def point(time: int, value: Any = 1.0, **tags: str) -> Point:
    return Point("m", tags, {"celsius": value, "unit": "C"}, time)


def test_points_aggregates_and_pairs_are_a_series_by_time() -> None:
    points = [point(20, 2), point(10, 1.5, shard="a")]
    aggregates = [Aggregate({}, 20, {"mean": 2}), Aggregate({}, 10, {"mean": 1.5})]
    series = [(10, 1.5), (20, 2.0)]

    assert series_of(points, "celsius") == series
    assert series_of(aggregates) == series_of(aggregates, "mean") == series
    assert series_of(iter([(20, 2), (10, 1.5)])) == series
    assert series_of([]) == robust_z_scores([]) == []


@pytest.mark.parametrize(
    ("found", "field", "reason"),
    [
        ([point(1)], "", "name a field; there are celsius, unit"),
        ([point(1)], "kelvin", "no field 'kelvin'; there are celsius, unit"),
        ([point(1)], "unit", "the value at 1 must be a number, got str"),
        ([point(1, True)], "celsius", "the value at 1 must be a number, got bool"),
        ([Aggregate({}, 1, {"mean": 1, "max": 2})], "", "name a function; there are mean, max"),
        ([Aggregate({}, 1, {"mean": None})], "", "got NoneType; fill"),
        ([(1, math.nan)], "", "the value at 1 must be a finite number"),
        ([(1, 2e100)], "", "the value at 1 must be a finite number of at most 1e100, got 2e.100"),
        ([(1, 2), (1, 3)], "", "two values at 1; query one series"),
        ([("1", 2)], "", "needs points, aggregates or .time, value., got tuple"),
        ([3], "", "needs points, aggregates or .time, value., got int"),
        (
            [Aggregate({"host": "a"}, 1, {"mean": 1}), Aggregate({"host": "b"}, 2, {"mean": 1})],
            "mean",
            "2 groups are not one series",
        ),
    ],
)
def test_what_is_no_series_is_refused(found: Any, field: str, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        series_of(found, field)


@pytest.mark.parametrize(
    ("package", "function", "options"),
    [
        ("ruptures", change_points, {}),
        ("statsmodels.tsa.seasonal", seasonal_residuals, {"period": 5}),
        ("statsmodels.tsa.exponential_smoothing.ets", forecast, {"steps": 1}),
    ],
)
def test_a_missing_package_names_the_extra(
    package: str, function: Any, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ConfigError, match=rf"{package} is missing: pip install .*\[analysis\]"):
        function([(n, n % 3) for n in range(20)], **options)
