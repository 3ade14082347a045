"""ChangePoint points of a series, against an exhaustive search in numpy."""

import math
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_flink.common import PipelineError, Rejected
from sage_flink.tsdb import ChangePoint, change_points

SIGMAS_OF_MAD = 1.482602218505602


def cost(values: Any, places: tuple[int, ...], penalty: float) -> float:
    """The squared error of the segments, in variances of the noise, and the price of changes."""
    noise = SIGMAS_OF_MAD * np.median(np.abs(np.diff(values))) / math.sqrt(2)
    parts = np.split(values, places)
    error = sum(float(((part - part.mean()) ** 2).sum()) for part in parts)
    return error / noise**2 + penalty * math.log(len(values)) * len(places)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(6, 14), st.floats(0.5, 4))
def test_no_other_changes_cost_less(seed: int, count: int, penalty: float) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(size=count) + random.choice([0, 6], size=count)

    found = change_points(list(enumerate(values.tolist())), penalty=penalty, values_min=1)

    places = tuple(change.time for change in found)
    every = (c for k in range(4) for c in combinations(range(1, count), k))
    least = min(cost(values, c, penalty) for c in every)
    assert cost(values, places, penalty) <= least * (1 + 1e-6) + 1e-6
    for place, change in zip(places, found, strict=True):
        before, after = max((p for p in places if p < place), default=0), (*places, count)
        assert change.before == pytest.approx(values[before:place].mean())
        assert change.after == pytest.approx(
            values[place : min(p for p in after if p > place)].mean()
        )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 10**6), st.lists(st.integers(20, 60), min_size=1, max_size=4))
def test_steps_of_ten_deviations_are_found_where_they_are(seed: int, lengths: list[int]) -> None:
    random, levels = np.random.default_rng(seed), [10.0 * (n % 2) for n in range(len(lengths))]
    values = np.repeat(levels, lengths) + random.normal(size=sum(lengths))

    found = change_points([(60 * n, value) for n, value in enumerate(values.tolist())], penalty=12)

    assert [change.time // 60 for change in found] == np.cumsum(lengths)[:-1].tolist()


def test_series_without_noise_or_without_a_change() -> None:
    step = [(n, 5.0 if n < 10 else 7.0) for n in range(20)]

    assert change_points(step) == [ChangePoint(10, 5.0, 7.0)]
    assert change_points([(n, 5.0) for n in range(20)]) == []
    assert change_points([(0, 1.0)]) == change_points([]) == []


@pytest.mark.parametrize(
    ("series", "options", "error", "reason"),
    [
        ([(n, 1.0) for n in range(10_001)], {}, Rejected, "at most 10000 values, got 10001"),
        ([], {"penalty": 0}, PipelineError, "penalty must be above 0"),
        ([], {"penalty": math.inf}, PipelineError, "penalty must be above 0"),
        ([], {"values_min": 0}, PipelineError, "values_min must be at least 1"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    series: Any, options: Any, error: Any, reason: str
) -> None:
    with pytest.raises(error, match=f"change_points: {reason}"):
        change_points(series, **options)
