"""Joins of two series are those that DuckDB makes."""

import random
from collections import Counter
from typing import Any

import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from series_truth import joined_asof, joined_windows, side

from sage_flink.common import Rejected
from sage_flink.tsdb import Aggregate, Aggregation, Point, join_asof, join_windows
from sage_flink.tsdb.aggregates import Row, aggregate
from sage_flink.tsdb.joins import DIRECTIONS, HOWS
from sage_flink.tsdb.time_series_store import TIME_MAX_NS, TIME_MIN_NS

BIG = 2**53
SOME = settings(max_examples=30, deadline=None)
tags = st.fixed_dictionaries(
    {}, optional={"host": st.sampled_from("ab"), "disk": st.sampled_from("01")}
)
times = st.integers(-9, 9) | st.integers(2**60, 2**60 + 5)
values = st.integers(-(2**63), 2**63 - 1) | st.integers(BIG, BIG + 3)
points = st.lists(
    st.builds(lambda t, k, v: Point("m", k, {"v": v}, t), times, tags, values), max_size=12
)
some_tags = st.sampled_from([(), ("host",), ("disk", "host"), ("rack",)])


def in_time(made: list[Point]) -> list[Point]:
    return sorted(made, key=lambda point: point.timestamp_ns)


def rows_of(frame: pandas.DataFrame, *names: str) -> list[tuple[Any, ...]]:
    """The columns of these names; a side without points has none."""
    columns = []
    for name in names:
        column = frame[name] if name in frame else pandas.Series([pandas.NA] * len(frame))
        if name.startswith("time"):
            column = column.astype("Int64") if column.dtype == object else _ns(column)
        columns.append([None if pandas.isna(value) else value for value in column])
    return list(zip(*columns, strict=True))


def _ns(column: pandas.Series) -> pandas.Series:
    return column.astype("int64").astype("Int64").mask(column.isna())


def values_of(left: list[Point], right: list[Point]) -> tuple[str, str]:
    """The columns of the values; without a clash there is no suffix."""
    if left and right:
        return "v_left", "v_right"
    return ("v", "none") if left else ("none", "v")


@SOME
@given(
    left=points,
    right=points,
    by=some_tags,
    direction=st.sampled_from(DIRECTIONS),
    tolerance_ns=st.none() | st.integers(0, 12) | st.just(2**70),
)
def test_rows_meet_the_next_one_in_time_as_in_duckdb(
    left: list[Point], right: list[Point], by, direction, tolerance_ns: int | None
) -> None:
    left, right = in_time(left), in_time(right)

    frame = join_asof(left, right, by=by, direction=direction, tolerance_ns=tolerance_ns)

    known = [tag for tag in by if tag != "rack"]  # which no point has
    expected = joined_asof(side(left), side(right), known, direction, tolerance_ns)
    assert rows_of(frame, *values_of(left, right), "time_right") == expected


@SOME
@given(left=points, right=points, by=some_tags, how=st.sampled_from(HOWS))
def test_rows_of_equal_times_meet_as_in_duckdb(
    left: list[Point], right: list[Point], by, how
) -> None:
    frame = join_windows(left, right, by=by, how=how)

    known = [tag for tag in by if tag != "rack"]
    expected = joined_windows(side(left), side(right), known, how)
    assert Counter(rows_of(frame, *values_of(left, right), "time")) == Counter(expected)
    assert frame["time"].is_monotonic_increasing


def test_whole_numbers_and_missing_tags_stay_as_they_are() -> None:
    left = [Point("m", {"host": "a"}, {"v": BIG + 1}, 5), Point("m", {}, {"v": 2}, 6)]
    right = [Point("m", {"host": "a"}, {"w": BIG + 3, "ok": True}, 4)]

    frame = join_asof(left, right, by=("host",))

    assert frame["w"].tolist() == [BIG + 3, pandas.NA]
    assert [str(frame[name].dtype) for name in ("v", "w", "ok", "host")] == [
        *["Int64", "Int64", "boolean", "string"],
    ]
    assert frame["host"].tolist() == ["a", pandas.NA]
    assert set(frame) == {"time", "host", "v", "w", "ok", "time_right"}


def test_the_earlier_of_two_equally_near_rows_is_taken() -> None:
    left = [Point("m", {}, {"v": 0}, 10)]
    right = [Point("m", {}, {"w": w}, t) for w, t in enumerate([5, 15])]

    assert join_asof(left, right, direction="nearest")["w"].tolist() == [0]
    assert join_asof(left, right, direction="nearest", tolerance_ns=4)["w"].isna().all()


def test_windows_of_two_queries_meet() -> None:
    rows = [Row(n, {"host": "ab"[n % 2]}, n) for n in range(8)]
    means = aggregate(rows, Aggregation(("mean",), 4, by=("host",)))
    counts = aggregate(rows[:5], Aggregation(("count",), 4, by=("host",)))

    frame = join_windows(means, counts, by=("host",), how="full")

    assert rows_of(frame, "time", "host", "mean", "count") == [
        *[(0, "a", 1.0, 2), (0, "b", 2.0, 2), (4, "a", 5.0, 1), (4, "b", 6.0, None)],
    ]


def test_sessions_meet_where_they_begin_and_end_together() -> None:
    left = [Aggregate({}, 0, {"sum": 1}, 20), Aggregate({}, 50, {"sum": 2}, 60)]
    right = [Aggregate({}, 0, {"sum": 3}, 20), Aggregate({}, 50, {"sum": 4}, 70)]

    assert join_windows(left, right)["sum_right"].tolist() == [3]
    assert len(join_windows(left, right, how="full")) == 3
    assert join_windows(left, [], how="left")["sum"].tolist() == [1, 2]
    with pytest.raises(Rejected, match="sessions have an end and meet sessions only"):
        join_windows(left, [Aggregate({}, 0, {"sum": 3})])


ONE = [Point("m", {"host": "a"}, {"v": 1}, 0)]


@pytest.mark.parametrize(
    ("join", "message"),
    [
        (lambda: join_asof(ONE, ONE, direction="next"), "backward, forward, nearest, got 'next'"),
        (lambda: join_asof(ONE, ONE, tolerance_ns=-1), "tolerance_ns must be 0 or more"),
        (lambda: join_asof(ONE, ONE, by=("v",)), "'v' is no tag"),
        (lambda: join_asof(ONE, ONE, by=("time",)), "'time' is no tag"),
        (lambda: join_asof(ONE, ONE, by=("",)), "'' is no tag"),
        (lambda: join_windows(ONE, ONE, by=("host", "host")), "given twice"),
        (lambda: join_windows(ONE, ONE, how="outer"), "inner, left, full, got 'outer'"),
        (
            lambda: join_asof(
                [Point("m", {}, {"v": 1}, TIME_MIN_NS)], [Point("m", {}, {"v": 1}, TIME_MAX_NS)]
            ),
            "more than 292 years apart",
        ),
        (
            lambda: join_asof(ONE, [Point("m", {}, {"time_right": 1}, 0)]),
            "two columns would be called 'time_right'",
        ),
        (
            lambda: join_windows([Point("m", {}, {"v": 1, "v_right": 2}, 0)], ONE),
            "v_right",
        ),
    ],
)
def test_a_wrong_join_is_refused(join, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        join()


@pytest.mark.full
@pytest.mark.timeout(600)
def test_a_million_rows_meet_those_of_duckdb() -> None:
    rng = random.Random(5)

    def made(count: int) -> list[Point]:
        hosts = [{"host": f"h{n}"} for n in range(2_000)]
        return in_time(
            [
                Point("m", rng.choice(hosts), {"v": rng.randrange(2**62)}, rng.randrange(10**12))
                for _ in range(count)
            ]
        )

    left, right = made(1_000_000), made(100_000)

    for direction in DIRECTIONS:
        frame = join_asof(left, right, by=("host",), direction=direction, tolerance_ns=10**10)
        expected = joined_asof(side(left), side(right), ("host",), direction, 10**10)
        assert rows_of(frame, "v_left", "v_right", "time_right") == expected
