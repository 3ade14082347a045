"""Conformance suite of the time-series stores."""

import pickle
import string
import uuid
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sage_flink.common import Record
from sage_flink.tsdb import Bucket, Field, Point, TimeSeriesStore
from sage_flink.tsdb.time_series_store import TIME_MAX_NS, TIME_MIN_NS, flaw

SECOND = 1_000_000_000
NASTY = [
    'a" or true or "',
    '") |> drop() //',
    "${measurement}",
    "a,b=c d",
    "back\\slash",
    "a\\b",
    "#comment",
    "it's",
    "日本 語",
    "🦅",
    "result",
    "table",
    "a=b",
    " lead",
    "trail ",
    '"',
    "//",
    "{}",
]
MANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def point(measurement: str, n: int, **tags: str) -> Point:
    return Point(measurement, tags, {"v": float(n)}, n * SECOND)


def test_points_are_returned_unchanged_in_order_of_time(
    series: TimeSeriesStore, measurement: str
) -> None:
    fields: dict[str, Field] = {"f": 1.5, "i": -7, "s": 'say "hi", \\ok\n', "b": True, "e": ""}
    later = Point(measurement, {"host": "b"}, fields, 1_700_000_000_123_456_789)
    earlier = Point(measurement, {"host": "a"}, {"f": 1e300}, 1_700_000_000_123_456_788)

    refused = series.append([later, earlier])

    assert list(refused) == []
    assert series.query(measurement) == [earlier, later]


def test_a_point_written_again_is_stored_once(series: TimeSeriesStore, measurement: str) -> None:
    for value in (1.0, 2.0):
        series.append([Point(measurement, {"k": "v"}, {"v": value}, 5)])
    series.append([Point(measurement, {"k": "v", "none": ""}, {"w": 3.0}, 5)])

    assert series.count(measurement) == 1
    assert series.query(measurement) == [Point(measurement, {"k": "v"}, {"v": 2.0, "w": 3.0}, 5)]


def test_a_range_includes_its_start_and_excludes_its_stop(
    series: TimeSeriesStore, measurement: str
) -> None:
    series.append([point(measurement, n) for n in range(10)])

    found = series.query(measurement, start_ns=3 * SECOND, stop_ns=6 * SECOND)

    assert [p.fields["v"] for p in found] == [3, 4, 5]
    assert series.count(measurement, 3 * SECOND) == 7
    assert [p.fields["v"] for p in series.query(measurement, points_max=2)] == [0, 1]
    assert series.query(measurement, start_ns=5, stop_ns=5) == []


def test_tags_select_the_series(series: TimeSeriesStore, measurement: str) -> None:
    series.append([point(measurement, 1, a="x", b="y"), point(measurement, 2, a="x", b="z")])

    assert len(series.query(measurement, tags={"a": "x"})) == 2
    assert len(series.query(measurement, tags={"a": "x", "b": "z"})) == 1
    assert series.query(measurement, tags={"b": "nothing"}) == []


@pytest.mark.parametrize("text", NASTY)
def test_text_in_a_query_is_never_code(
    series: TimeSeriesStore, measurement: str, text: str
) -> None:
    tagged = Point(measurement, {"k": text}, {"v": text}, 1)
    series.append([tagged, Point(measurement, {"k": "other"}, {"v": "other"}, 2)])

    assert series.query(measurement, tags={"k": text}) == [tagged]
    assert series.query(measurement, tags={text: "x"}) == []
    assert series.query(f"{measurement}{text}") == []


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
values = (
    st.floats()
    | st.integers(-(2**64), 2**64)
    | st.booleans()
    | st.text(st.characters(codec="utf-8"), max_size=20)
)


@MANY
@given(
    tags=st.dictionaries(
        names | st.sampled_from(NASTY), names | st.sampled_from(NASTY), max_size=3
    ),
    text=st.text(string.printable, max_size=30),
    number=values,
    time_ns=st.integers(-(2**62), 2**62),
)
def test_a_point_is_stored_whole_or_refused(
    series: TimeSeriesStore,
    measurement: str,
    tags: dict[str, str],
    text: str,
    number: Field,
    time_ns: int,
) -> None:
    kind = type(number).__name__
    own = {"example": uuid.uuid4().hex}
    made = Point(measurement, tags | own, {f"n {kind}": number, "text, ": text}, time_ns)

    refused = series.append([made])

    found = series.query(measurement, tags=own, start_ns=time_ns, stop_ns=time_ns + 1)
    assert bool(refused) == bool(flaw(made))
    assert (made in found) != bool(refused)


def test_a_field_of_another_type_is_refused_alone(
    series: TimeSeriesStore, measurement: str
) -> None:
    series.append([point(measurement, 0)])
    made = [point(measurement, n) for n in range(1, 9)]
    made[3] = Point(measurement, {}, {"v": "text"}, 3 * SECOND + 1)
    made[6] = Point(measurement, {}, {}, 1)

    refused = series.append(made)

    assert sorted(r.position for r in refused) == [3, 6]
    assert {r.position: r.reason for r in refused}[6] == "point has no fields"
    assert series.count(measurement) == 7


def test_a_field_has_one_type_whatever_the_time(
    points: Bucket, series: TimeSeriesStore, measurement: str
) -> None:
    year_ns = 365 * 86_400 * SECOND
    first = Point(measurement, {}, {"v": 1.5}, 0)
    series.append([first])
    with closing(points.open()) as other:
        others = [Point(measurement, {}, {"v": v}, n * year_ns) for n, v in enumerate((2, "x"), 1)]

        refused = other.append([*others, Point(measurement, {}, {"v": 2.5, "w": 1}, 3 * year_ns)])

        assert [one.position for one in refused] == [0, 1]
        assert refused[1].reason == "field 'v' is str, already exists as float"
    mixed = [Point(measurement, {}, {"u": u}, n * year_ns) for n, u in enumerate(("x", 1.5))]
    assert [one.position for one in series.append(mixed)] == [1]
    assert [one.fields for one in series.query(measurement)] == [
        {"v": 1.5, "u": "x"}, {"v": 2.5, "w": 1}
    ]  # fmt: skip


def test_points_before_1970_are_found(series: TimeSeriesStore, measurement: str) -> None:
    times = [TIME_MIN_NS, -86_400 * SECOND, -1, 0, TIME_MAX_NS - 1]
    made = [Point(measurement, {}, {"v": 1.0}, time_ns) for time_ns in times]

    refused = series.append(made)

    assert list(refused) == []
    assert series.query(measurement) == made
    assert series.count(measurement) == len(made)
    assert series.query(measurement, start_ns=-SECOND, stop_ns=0) == [made[2]]


def test_the_types_of_fields_are_known(series: TimeSeriesStore, measurement: str) -> None:
    fields: dict[str, Field] = {"f": 1.5, "i": -7, "s": "x", "b": True}
    series.append([Point(measurement, {"f": "tag"}, fields, 5)])

    types = series.field_types()

    assert types[measurement] == {"f": float, "i": int, "s": str, "b": bool}


def written(points: Bucket, *values: Mapping[str, Any]) -> list[str]:
    """The reasons of the refusals of records with these values, written at once."""
    with closing(points.writer()) as writer:
        refused = writer.write([Record(f"r{n}", value) for n, value in enumerate(values)])
    return [refusal.reason for refusal in refused]


def test_whole_numbers_and_fractions_share_a_field(
    points: Bucket, series: TimeSeriesStore, measurement: str
) -> None:
    rows = [
        {"measurement": measurement, "fields": {"price": price}, "timestamp_ns": n}
        for n, price in enumerate([20, 20.5, 2**53 + 1, True, float("nan"), -0.0])
    ]

    refused = written(points, *rows)

    assert len(refused) == 3
    assert refused[0] == (
        "field 'price' is a float and would lose digits; name it in the bucket's `integers`: "
        "9007199254740993"
    )
    prices = [point.fields["price"] for point in series.query(measurement)]
    assert prices == [20.0, 20.5, 0.0]
    assert {type(price) for price in prices} == {float}


def test_a_field_stays_whole_where_it_is_or_is_named(
    points: Bucket, series: TimeSeriesStore, measurement: str
) -> None:
    series.append([Point(measurement, {}, {"old": 7}, 0)])
    named = replace(points, integers=("count",))
    rows = [
        {"measurement": measurement, "fields": fields, "timestamp_ns": n}
        for n, fields in enumerate([{"old": 8.0, "count": 2**53 + 1}, {"old": 8.5}], start=1)
    ]

    refused = written(named, *rows)

    assert refused == ["field 'old' holds whole numbers, got 8.5"]
    assert series.query(measurement)[1].fields == {"old": 8, "count": 2**53 + 1}


def test_tags_are_text_their_json_or_absent(
    points: Bucket, series: TimeSeriesStore, measurement: str
) -> None:
    tags = {"a": None, "b": True, "c": [1, "x"], "d": {"y": 1, "x": None}, "e": "None", "f": 1.0}
    row = {"measurement": measurement, "tags": tags, "fields": {"v": 1}, "timestamp_ns": 1}
    bad = [{**row, "tags": {"a": value}} for value in (float("nan"), b"x", object())]

    refused = written(points, row, *bad)

    assert len(refused) == 3
    assert all(reason.startswith("tag 'a' must be text or JSON: ") for reason in refused)
    (point,) = series.query(measurement)
    assert point.tags == {
        "b": "true", "c": '[1,"x"]', "d": '{"x":null,"y":1}', "e": "None", "f": "1.0"
    }  # fmt: skip


def test_an_unknown_measurement_has_no_points(series: TimeSeriesStore, measurement: str) -> None:
    assert (series.count(measurement), series.query(measurement)) == (0, [])
    assert list(series.append([])) == []


@given(tags=st.dictionaries(names, names, max_size=4), time_ns=st.integers(0, 2**62))
def test_points_that_differ_in_the_order_of_tags_are_the_same_point(
    tags: dict[str, str], time_ns: int
) -> None:
    turned = dict(reversed(tags.items()))

    one, other = Point("m", tags, {"v": 1}, time_ns), Point("m", turned, {"v": 2}, time_ns)

    assert one.identity == other.identity
    assert one.identity != Point("m", {**tags, "more": "x"}, {"v": 1}, time_ns + 1).identity


def test_a_bucket_can_be_pickled(points: Bucket) -> None:
    assert pickle.loads(pickle.dumps(points)) == points
