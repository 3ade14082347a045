"""Aggregates mean the same on every time-series store, and the same as in pandas."""

import random
from collections.abc import Iterator

import pandas
import pytest

from sage_flink.common import Rejected
from sage_flink.tsdb import Aggregate, Aggregation, Point, TimeSeriesStore, fill
from sage_flink.tsdb.time_series_store import TIME_MAX_NS, TIME_MIN_NS

pytestmark = pytest.mark.slow

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
FUNCTIONS = (
    *("count", "sum", "mean", "min", "max", "spread", "first", "last", "stddev", "median"),
    *("p50", "p99", "p99.9"),
)


def points_of(
    measurement: str, count: int, seed: int, *, whole: bool = False, start_ns: int = 0
) -> list[Point]:
    """Points of four series, some at one time, in an order of their own."""
    rng = random.Random(seed)
    points = []
    for n in range(count):
        time_ns = start_ns + rng.randrange(count) * 7 * SECOND + rng.randrange(3)
        value = rng.randint(-1000, 1000) if whole else rng.uniform(-1e3, 1e3)
        tags = {"host": rng.choice(["a", "b", "c d"]), "disk": f"{n % 2}"}
        if rng.random() < 0.2:
            del tags["host"]
        points.append(Point(measurement, tags, {"v": value, "other": n}, time_ns))
    return points


def stored(series: TimeSeriesStore, points: list[Point]) -> pandas.DataFrame:
    """The points as the store keeps them: the last one of each identity."""
    for at in range(0, len(points), 5_000):
        assert not series.append(points[at : at + 5_000])
    kept = {point.identity: point for point in points}
    frame = pandas.DataFrame(
        {"t": p.timestamp_ns, "v": p.fields["v"], "host": p.tags.get("host", ""), **p.tags}
        for p in kept.values()
    )
    frame["host"] = frame["host"].fillna("")
    return frame.sort_values(["t", "v"])


def of_pandas(frame: pandas.DataFrame) -> dict[str, float | None]:
    values = frame["v"]
    found = {
        "count": len(values),
        "sum": values.sum(),
        "mean": values.mean(),
        "min": values.min(),
        "max": values.max(),
        "spread": values.max() - values.min(),
        "first": values.iloc[0],
        "last": values.iloc[-1],
        "stddev": values.std() if len(values) > 1 else None,
        "median": values.median(),
    }
    return found | {f"p{q:g}": values.quantile(q / 100) for q in (50, 99, 99.9)}


def assert_equal(found: list[Aggregate], frame: pandas.DataFrame, wanted: Aggregation) -> None:
    expected = {}
    for offset_ns in wanted.offsets_ns:
        length = wanted.length_ns
        starts = (
            frame["t"] * 0
            if length is None
            else (frame["t"] - offset_ns) // length * length + offset_ns
        )
        for keys, rows in frame.groupby([frame[name] for name in wanted.by] + [starts]):
            tags = {k: v for k, v in zip(wanted.by, keys[:-1], strict=True) if v}
            expected[(*sorted(tags.items()), keys[-1])] = of_pandas(rows)
    got = {(*sorted(one.tags.items()), one.start_ns): one.values for one in found}

    assert got.keys() == expected.keys()
    for group, values in got.items():
        assert list(values) == list(wanted.functions)
        for name, value in values.items():
            other = expected[group][name]
            if other is not None:
                other = pytest.approx(other, rel=1e-9, abs=1e-9)
            assert value == other, (group, name)


@pytest.mark.parametrize("whole", [False, True], ids=["floats", "whole numbers"])
@pytest.mark.parametrize(
    "wanted",
    [
        Aggregation(FUNCTIONS),
        Aggregation(FUNCTIONS, by=("host",)),
        Aggregation(FUNCTIONS, MINUTE),
        Aggregation(FUNCTIONS, MINUTE, by=("host",)),
        Aggregation(FUNCTIONS, MINUTE, by=("disk", "host")),
        Aggregation(FUNCTIONS, MINUTE, 3 * MINUTE),
        Aggregation(FUNCTIONS, 20 * SECOND, MINUTE, by=("disk",)),
    ],
    ids=lambda wanted: f"{wanted.every_ns} {wanted.period_ns} {wanted.by}",
)
def test_aggregates_equal_those_of_pandas(
    series: TimeSeriesStore, measurement: str, wanted: Aggregation, whole: bool
) -> None:
    frame = stored(series, points_of(measurement, 400, 1, whole=whole))

    found = series.aggregate(measurement, "v", wanted, start_ns=0)

    assert_equal(found, frame, wanted)


def test_windows_before_1970_begin_at_multiples_of_their_length(
    series: TimeSeriesStore, measurement: str
) -> None:
    start_ns = -1_000 * SECOND
    frame = stored(series, points_of(measurement, 100, 2, start_ns=start_ns))
    wanted = Aggregation(FUNCTIONS, MINUTE, 2 * MINUTE, by=("host",))

    assert_equal(series.aggregate(measurement, "v", wanted, start_ns=start_ns), frame, wanted)


def test_a_range_and_tags_leave_out_points(series: TimeSeriesStore, measurement: str) -> None:
    frame = stored(series, points_of(measurement, 300, 3))
    start_ns, stop_ns = 250 * SECOND, 1_001 * SECOND
    wanted = Aggregation(FUNCTIONS, MINUTE)

    found = series.aggregate(
        measurement, "v", wanted, tags={"host": "c d"}, start_ns=start_ns, stop_ns=stop_ns
    )

    inside = frame[(frame["t"] >= start_ns) & (frame["t"] < stop_ns) & (frame["host"] == "c d")]
    assert_equal(found, inside, wanted)


def test_whole_numbers_stay_whole(series: TimeSeriesStore, measurement: str) -> None:
    big = 2**53 + 1
    series.append([Point(measurement, {}, {"v": n}, n) for n in (1, 2, big)])

    (found,) = series.aggregate(
        measurement, "v", Aggregation(("sum", "min", "max", "first", "last", "count")), start_ns=0
    )

    assert found.values == {
        "sum": big + 3,
        "min": 1,
        "max": big,
        "first": 1,
        "last": big,
        "count": 3,
    }


def test_a_sum_of_more_than_64_bits_is_a_float(series: TimeSeriesStore, measurement: str) -> None:
    large = 1_700_000_000_123_456_789
    for host in ("a", "b"):
        series.append([Point(measurement, {"host": host}, {"v": large}, n) for n in range(10)])

    (found,) = series.aggregate(measurement, "v", Aggregation(("sum", "mean", "max")), start_ns=0)

    assert found.values["sum"] == pytest.approx(20 * large)
    assert found.values["mean"] == pytest.approx(large)


def test_a_tag_without_a_value_must_be_absent(series: TimeSeriesStore, measurement: str) -> None:
    series.append([Point(measurement, {"host": "a"}, {"v": 1.0}, 1)])
    series.append([Point(measurement, {"disk": "0"}, {"v": 2.0}, 2)])

    assert [p.fields["v"] for p in series.query(measurement, tags={"host": ""})] == [2.0]
    (found,) = series.aggregate(
        measurement, "v", Aggregation(("sum",)), tags={"host": ""}, start_ns=0
    )
    assert found.values == {"sum": 2.0}
    assert series.aggregate(measurement, "", Aggregation(("count",))) == []


def test_text_is_counted_and_has_no_mean(series: TimeSeriesStore, measurement: str) -> None:
    states = ["up", "down", "up"]
    series.append([Point(measurement, {}, {"v": s}, n) for n, s in enumerate(states)])

    (found,) = series.aggregate(measurement, "v", Aggregation(("count", "last")), start_ns=0)
    assert found.values == {"count": 3, "last": "up"}
    with pytest.raises(Rejected, match="mean needs numbers; field 'v' is str"):
        series.aggregate(measurement, "v", Aggregation(("mean",)))


@pytest.mark.parametrize("name", ['v" or true', "v\\", "${v}", 'v") |> drop() //'])
def test_no_name_breaks_out_of_a_query(
    series: TimeSeriesStore, measurement: str, name: str
) -> None:
    series.append([Point(measurement, {"k": "x"}, {"v": 1.0}, 5)])

    assert series.aggregate(measurement, name, Aggregation(("count",), by=(name,))) == []
    (found,) = series.aggregate(measurement, "v", Aggregation(("count",), by=(name,)), start_ns=0)
    assert (found.tags, found.values) == ({}, {"count": 1})
    assert series.aggregate(measurement, "v", Aggregation(("count",)), tags={"k": name}) == []


def test_short_windows_of_all_times_are_those_with_points(
    series: TimeSeriesStore, measurement: str
) -> None:
    series.append([Point(measurement, {}, {"v": float(n)}, n * MINUTE) for n in (-5, 0, 7)])

    found = series.aggregate(measurement, "v", Aggregation(("sum", "median"), SECOND))

    assert [(one.start_ns, one.values["sum"]) for one in found] == [
        (-5 * MINUTE, -5.0),
        (0, 0.0),
        (7 * MINUTE, 7.0),
    ]


def test_there_are_no_aggregates_of_no_points(series: TimeSeriesStore, measurement: str) -> None:
    for wanted in (Aggregation(FUNCTIONS), Aggregation(FUNCTIONS, MINUTE, by=("host",))):
        assert series.aggregate(measurement, "v", wanted) == []


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Aggregation(()), "give a function or more"),
        (lambda: Aggregation(("avg",)), "no function 'avg'; there are count, sum"),
        (lambda: Aggregation(("p100",)), "no function 'p100'"),
        (lambda: Aggregation(("mean", "mean")), "given twice"),
        (lambda: Aggregation(("mean",), by=("a", "a")), "given twice"),
        (lambda: Aggregation(("mean",), by=("_start",)), "'_start' is no tag"),
        (lambda: Aggregation(("mean",), 0), "every_ns must be positive"),
        (lambda: Aggregation(("mean",), None, 5), "period_ns must be a multiple"),
        (lambda: Aggregation(("mean",), 1, 10**12), "at most 1000 windows"),
        (lambda: Aggregation(("mean",), 2, 5), "period_ns must be a multiple of every_ns 2, got 5"),
    ],
)
def test_a_wrong_aggregation_is_refused(make, message: str) -> None:
    with pytest.raises(Rejected, match=message):
        make()


def windows(**values: float | None) -> Iterator[Aggregate]:
    for name, value in values.items():
        yield Aggregate({}, int(name[1:]) * 10, {"mean": value})


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("none", [None, None, 2.0, None, None, 8.0, None]),
        ("zero", [0, 0, 2.0, 0, 0, 8.0, 0]),
        ("previous", [None, None, 2.0, 2.0, 2.0, 8.0, 8.0]),
        ("next", [2.0, 2.0, 2.0, 8.0, 8.0, 8.0, None]),
        ("linear", [None, None, 2.0, 4.0, 6.0, 8.0, None]),
    ],
)
def test_missing_windows_are_filled(how, expected: list[float | None]) -> None:
    found = fill(windows(w1=2.0, w4=8.0), how, 10, -5, 60)

    assert [one.start_ns for one in found] == [-10, 0, 10, 20, 30, 40, 50]
    assert [one.values["mean"] for one in found] == expected


def test_each_group_is_filled_by_itself() -> None:
    a, b = Aggregate({"k": "a"}, 0, {"sum": 1}), Aggregate({"k": "b"}, 20, {"sum": 2})

    found = fill([a, b], "zero", 10, 0, 30)

    assert [(one.tags["k"], one.values["sum"]) for one in found] == [
        *[("a", 1), ("a", 0), ("a", 0)],
        *[("b", 0), ("b", 0), ("b", 2)],
    ]


def test_too_many_windows_are_refused() -> None:
    for start_ns, stop_ns in ((0, SECOND), (TIME_MIN_NS, TIME_MAX_NS)):
        with pytest.raises(Rejected, match="more than 1000000 windows"):
            fill(windows(w1=1.0), "zero", 1, start_ns, stop_ns)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_a_million_points_are_aggregated_as_pandas_does(
    series: TimeSeriesStore, measurement: str
) -> None:
    frame = stored(series, points_of(measurement, 1_000_000, 4))

    for wanted in (
        Aggregation(FUNCTIONS, 10_000 * MINUTE, by=("host",)),
        Aggregation(FUNCTIONS, 10_000 * MINUTE, 20_000 * MINUTE),
        Aggregation(FUNCTIONS),
    ):
        assert_equal(series.aggregate(measurement, "v", wanted, start_ns=0), frame, wanted)
