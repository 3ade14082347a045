"""Rates, derivatives and sessions mean the same on every time-series store, and as in DuckDB."""

import asyncio
import random
import uuid
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from series_truth import AGGREGATES, RATES, SECOND, aggregates, assert_equal, points_table

import sage_flink as sage
from sage_flink.common import Record, Rejected
from sage_flink.flow import Last, Session
from sage_flink.testing import ListSink, ListSource
from sage_flink.tsdb import Aggregation, Point, TimeSeriesStore

pytestmark = pytest.mark.slow

MINUTE = 60 * SECOND
FUNCTIONS = (*AGGREGATES, *RATES)
#: Without a deviation or an interpolation, which floats of large whole numbers lose.
EXACT = ("count", "sum", "min", "max", "first", "last", *RATES)
FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def counters(measurement: str, count: int, seed: int, *, whole: bool = False) -> list[Point]:
    """Points of six counters that begin again now and then, with pauses."""
    rng = random.Random(seed)
    series = [{"disk": disk, "host": host} for disk in "01" for host in ("a", "b c", "")]
    values: list[float] = [0.0] * len(series)
    points, time_ns = [], 0
    for _ in range(count):
        time_ns += rng.choice([1, SECOND, 7 * SECOND, 40 * SECOND if rng.random() < 0.05 else 3])
        n = rng.randrange(len(series))
        values[n] = rng.uniform(0, 5) if rng.random() < 0.05 else values[n] + rng.uniform(0, 1e3)
        value = int(values[n]) if whole else values[n]
        tags = {name: tag for name, tag in series[n].items() if tag}
        points.append(Point(measurement, tags, {"v": value, "other": n}, time_ns))
    rng.shuffle(points)
    return points


def stored(series: TimeSeriesStore, points: list[Point]) -> None:
    for at in range(0, len(points), 5_000):
        assert not series.append(points[at : at + 5_000])


@pytest.mark.parametrize("whole", [False, True], ids=["floats", "whole numbers"])
@pytest.mark.parametrize(
    "wanted",
    [
        Aggregation(FUNCTIONS),
        Aggregation(("rate",), by=("host",)),
        Aggregation(FUNCTIONS, MINUTE, by=("host",)),
        Aggregation(("derivative",), MINUTE, by=("disk", "host")),
        Aggregation(FUNCTIONS, MINUTE, 3 * MINUTE, by=("disk",)),
        Aggregation(FUNCTIONS, session_gap_ns=7 * SECOND),
        Aggregation(FUNCTIONS, by=("host",), session_gap_ns=30 * SECOND),
        Aggregation(FUNCTIONS, by=("disk", "host"), session_gap_ns=40 * SECOND),
    ],
    ids=lambda w: f"{w.functions[0]} {w.every_ns} {w.period_ns} {w.session_gap_ns} {w.by}",
)
def test_rates_and_sessions_equal_those_of_duckdb(
    series: TimeSeriesStore, measurement: str, wanted: Aggregation, whole: bool
) -> None:
    points = counters(measurement, 500, 1, whole=whole)
    stored(series, points)

    found = series.aggregate(measurement, "v", wanted, start_ns=0)

    assert_equal(found, aggregates(points_table(points, "v"), wanted), wanted)


@st.composite
def some_points(draw: st.DrawFn) -> tuple[list[Point], str]:
    """Points of a few series, and the name of their field: of whole numbers, or of floats."""
    whole = draw(st.booleans())
    wholes = st.integers(-(2**63), 2**63 - 1) | st.integers(2**53, 2**53 + 9) | st.integers(-9, 9)
    value = wholes if whole else st.integers(-(2**20), 2**20).map(lambda n: n / 8)
    times = st.integers(-20, 20).map(lambda n: n * SECOND) | st.integers(-30, 30)
    tags = st.fixed_dictionaries(
        {"disk": st.sampled_from("01")}, optional={"host": st.sampled_from(["a", "b c"])}
    )
    field = "whole" if whole else "float"
    one = st.builds(lambda t, k, v: Point("m", k, {field: v}, t), times, tags, value)
    return draw(st.lists(one, min_size=1, max_size=25)), field


windowings = st.sampled_from(
    [
        Aggregation(EXACT),
        Aggregation(EXACT, 4 * SECOND),
        Aggregation(EXACT, 3 * SECOND, 9 * SECOND),
        Aggregation(EXACT, 20),
        Aggregation(EXACT, session_gap_ns=2 * SECOND),
        Aggregation(EXACT, session_gap_ns=5),
    ]
)


@FEW
@given(
    made=some_points(),
    windowing=windowings,
    by=st.sampled_from([(), ("host",), ("disk", "host")]),
)
def test_any_points_have_the_aggregates_of_duckdb(
    series: TimeSeriesStore,
    measurement: str,
    made: tuple[list[Point], str],
    windowing: Aggregation,
    by: tuple[str, ...],
) -> None:
    points, field = made
    own = {"example": uuid.uuid4().hex}
    points = [replace(p, measurement=measurement, tags=p.tags | own) for p in points]
    wanted = replace(windowing, by=by)
    assert not series.append(points)
    start_ns = -100 * SECOND
    table = points_table(points, field)

    found = series.aggregate(measurement, field, wanted, tags=own, start_ns=start_ns)

    if wanted.every_ns is None and wanted.session_gap_ns is None:
        found = [replace(one, start_ns=0) for one in found]
    assert_equal(found, aggregates(table, wanted), wanted)


def test_a_counter_that_begins_again_has_its_new_value_as_increase(
    series: TimeSeriesStore, measurement: str
) -> None:
    values = [10, 15, 4, 4, 9]
    series.append(
        [Point(measurement, {}, {"v": value}, n * SECOND) for n, value in enumerate(values)]
    )

    (found,) = series.aggregate(measurement, "v", Aggregation(RATES), start_ns=0)

    assert found.values == {"rate": (5 + 4 + 0 + 5) / 4, "derivative": (9 - 10) / 4}


def test_the_rate_of_a_group_is_the_sum_of_those_of_its_series(
    series: TimeSeriesStore, measurement: str
) -> None:
    for n in range(3):
        series.append([Point(measurement, {"host": "a"}, {"v": 2.0 * n}, n * SECOND)])
        series.append([Point(measurement, {"host": "b"}, {"v": 30.0 - n}, n * SECOND + 5)])
    series.append([Point(measurement, {"host": "only one"}, {"v": 99.0}, SECOND)])

    (found,) = series.aggregate(measurement, "v", Aggregation(RATES), start_ns=0)
    groups = series.aggregate(measurement, "v", Aggregation(RATES, by=("host",)), start_ns=0)

    assert found.values == {"rate": 2.0 + (29 + 28) / 2, "derivative": 2.0 - 1.0}
    assert [one.values["derivative"] for one in groups] == [2.0, -1.0, None]
    assert [one.values["rate"] for one in groups] == [2.0, 28.5, None]


def test_large_counters_differ_by_little(series: TimeSeriesStore, measurement: str) -> None:
    large = 2**62
    series.append([Point(measurement, {}, {"v": large + n}, n * SECOND) for n in range(4)])

    (found,) = series.aggregate(measurement, "v", Aggregation((*RATES, "mean")), start_ns=0)

    assert found.values == {"rate": 1.0, "derivative": 1.0, "mean": pytest.approx(large)}


def test_a_point_at_the_end_of_the_gap_is_part_of_the_session(
    series: TimeSeriesStore, measurement: str
) -> None:
    gap = 10 * SECOND
    times = [-3 * gap, 0, gap, 2 * gap, 3 * gap + 1]
    series.append([Point(measurement, {}, {"v": float(n)}, t) for n, t in enumerate(times)])

    found = series.aggregate(measurement, "v", Aggregation(("sum",), session_gap_ns=gap))

    assert [(one.start_ns, one.end_ns, one.values["sum"]) for one in found] == [
        (-3 * gap, -2 * gap, 0.0),
        (0, 3 * gap, 1.0 + 2.0 + 3.0),
        (3 * gap + 1, 4 * gap + 1, 4.0),
    ]


def test_a_session_has_the_points_of_the_range_and_tags(
    series: TimeSeriesStore, measurement: str
) -> None:
    for host in ("a", "b"):
        made = [Point(measurement, {"host": host}, {"v": n}, n * SECOND) for n in range(10)]
        series.append(made)
    wanted = Aggregation(("count", "first", "last"), session_gap_ns=SECOND)

    (found,) = series.aggregate(
        measurement, "v", wanted, tags={"host": "b"}, start_ns=3 * SECOND, stop_ns=7 * SECOND
    )

    assert (found.start_ns, found.end_ns) == (3 * SECOND, 7 * SECOND)
    assert found.values == {"count": 4, "first": 3, "last": 6}
    assert series.aggregate(measurement, "none", wanted) == []


def test_sessions_count_text_and_have_no_rate_of_it(
    series: TimeSeriesStore, measurement: str
) -> None:
    series.append([Point(measurement, {}, {"v": "up"}, n * SECOND) for n in range(2)])

    (found,) = series.aggregate(
        measurement, "v", Aggregation(("count", "last"), session_gap_ns=SECOND)
    )

    assert found.values == {"count": 2, "last": "up"}
    with pytest.raises(Rejected, match="rate needs numbers; field 'v' is str"):
        series.aggregate(measurement, "v", Aggregation(("rate",)))


@pytest.mark.parametrize("name", ['v" or true', "${v}", 'v") |> drop() //'])
def test_no_name_breaks_out_of_a_query_for_sessions(
    series: TimeSeriesStore, measurement: str, name: str
) -> None:
    series.append([Point(measurement, {"k": "x"}, {"v": 1.0}, 5)])
    wanted = Aggregation(("count", "rate"), by=(name,), session_gap_ns=1)

    assert series.aggregate(measurement, name, wanted) == []
    (found,) = series.aggregate(measurement, "v", wanted)
    assert (found.tags, found.values) == ({}, {"count": 1, "rate": None})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Aggregation(("mean",), session_gap_ns=0), "session_gap_ns must be positive"),
        (lambda: Aggregation(("mean",), 5, session_gap_ns=5), "every_ns or session_gap_ns"),
        (lambda: Aggregation(("mean",), None, 5, (), 5), "period_ns must be a multiple"),
        (lambda: Aggregation(("rates",)), "there are count, .*, rate, derivative and p99"),
    ],
)
def test_a_wrong_aggregation_is_refused(make, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        make()


def test_sessions_are_those_of_a_stream(series: TimeSeriesStore, measurement: str) -> None:
    rng, gap_ms = random.Random(7), 50
    times_ms = sorted(1_000 + rng.randrange(20_000) // 10 * 10 for _ in range(900))
    rows = [{"host": rng.choice("abc"), "v": n} for n in range(len(times_ms))]
    records = tuple(
        Record(f"t/0/{n}", row, time_ms, origin=f"t/0/{n}")
        for n, (row, time_ms) in enumerate(zip(rows, times_ms, strict=True))
    )
    graph = sage.flow.pipeline(
        sage.flow.read("in", ListSource(records))
        .event_time("time", out_of_order_s=1)
        .key_by("by-host", "host")
        .window("visits", Session(gap_ms / 1000), {"last": Last("v")})
        .write("out", ListSink())
    )
    windows = [record.value for record in asyncio.run(sage.flow.run(graph)).written["out"]]
    points = [
        # Each has a series of its own: of two at one time a store would keep one.
        Point(measurement, {"host": row["host"], "n": f"{n}"}, {"v": n}, time_ms * 1_000_000)
        for n, (row, time_ms) in enumerate(zip(rows, times_ms, strict=True))
    ]
    stored(series, points)

    wanted = Aggregation(("last",), by=("host",), session_gap_ns=gap_ms * 1_000_000)
    found = series.aggregate(measurement, "v", wanted, start_ns=0)

    assert len(found) > 100
    assert any(late - soon == gap_ms for soon, late in pairwise(times_ms))
    assert sorted(
        (one.tags["host"], one.start_ns // 10**6, (one.end_ns or 0) // 10**6, one.values["last"])
        for one in found
    ) == sorted((w["key"], w["start_ms"], w["end_ms"], w["last"]) for w in windows)


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_million_points_have_the_rates_and_sessions_of_duckdb(
    series: TimeSeriesStore, measurement: str
) -> None:
    points = counters(measurement, 1_000_000, 4)
    stored(series, points)
    table = points_table(points, "v")

    for wanted in (
        Aggregation(RATES),
        Aggregation(RATES, 1_000 * MINUTE, 2_000 * MINUTE, by=("host",)),
        Aggregation(FUNCTIONS, by=("host",), session_gap_ns=39 * SECOND),
    ):
        found = series.aggregate(measurement, "v", wanted, start_ns=0)
        assert_equal(found, aggregates(table, wanted), wanted)
