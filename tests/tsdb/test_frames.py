"""Points and aggregates as tables: each column has a type, and what is missing is null."""

import subprocess
import sys

import pandas
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_connectors.point_files import write_points
from sage_flink.common import ConfigError, Rejected
from sage_flink.tsdb import Aggregate, Aggregation, Field, Point, fill, to_arrow, to_pandas
from sage_flink.tsdb.aggregates import Row, aggregate
from sage_flink.tsdb.time_series_store import TIME_MAX_NS, TIME_MIN_NS

INSTANT = pyarrow.timestamp("ns", tz="UTC")
BIG = 2**53 + 1
POINTS = [
    Point("m", {"host": "a"}, {"n": BIG, "f": 0.5, "ok": True}, 1_700_000_000_123_456_789),
    Point("m", {"disk": "0"}, {"n": -1, "s": "up"}, TIME_MAX_NS),
    Point("m", {}, {"s": "down"}, TIME_MIN_NS),
]


def test_points_have_a_typed_column_for_each_tag_and_field() -> None:
    table = to_arrow(POINTS)

    assert dict(zip(table.column_names, table.schema.types, strict=True)) == {
        "time": INSTANT,
        "disk": pyarrow.string(),
        "host": pyarrow.string(),
        "f": pyarrow.float64(),
        "n": pyarrow.int64(),
        "ok": pyarrow.bool_(),
        "s": pyarrow.string(),
    }
    assert table.column("time").cast(pyarrow.int64()).to_pylist() == [
        p.timestamp_ns for p in POINTS
    ]
    assert table.column("n").to_pylist() == [BIG, -1, None]
    assert table.column("host").to_pylist() == ["a", None, None]


def test_whole_numbers_stay_whole_in_pandas_where_some_are_missing() -> None:
    frame = to_pandas(POINTS)

    assert [str(kind) for kind in frame.dtypes] == [
        *["datetime64[ns, UTC]", "string", "string", "float64", "Int64", "boolean", "string"],
    ]
    assert frame["n"].tolist() == [BIG, -1, pandas.NA]
    assert frame["time"].astype("int64").tolist() == [p.timestamp_ns for p in POINTS]
    assert frame["f"].isna().tolist() == [False, True, True]
    assert frame["ok"].sum() == 1


def test_aggregates_have_a_column_for_each_function() -> None:
    rows = [Row(n, {"host": "ab"[n % 2]}, n) for n in range(3)]
    wanted = Aggregation(("count", "mean", "stddev", "rate"), every_ns=10, by=("host",))

    table = to_arrow(aggregate(rows, wanted))

    assert table.to_pydict() == {
        "time": [pandas.Timestamp(0, tz="UTC")] * 2,
        "host": ["a", "b"],
        "count": [2, 1],
        "mean": [1.0, 1.0],
        "stddev": [2**0.5, None],
        "rate": [10**9, None],
    }
    assert table.schema.field("count").type == pyarrow.int64()


def test_a_column_without_values_has_the_type_of_numbers() -> None:
    one = aggregate([Row(5, {}, 1)], Aggregation(("stddev", "rate"), every_ns=10))

    assert to_arrow(one).schema.types == [INSTANT, pyarrow.float64(), pyarrow.float64()]
    assert to_pandas(fill(one, "zero", 10, 0, 30))["rate"].isna().tolist() == [True, False, False]


def test_sessions_have_an_end() -> None:
    sessions = aggregate([Row(5, {}, 1)], Aggregation(("sum",), session_gap_ns=10))
    by_end = [Aggregate({"end": "west"}, 5, {"sum": 1}, 15)]

    assert to_pandas(sessions)["end"].astype("int64").tolist() == [15]
    assert to_arrow(by_end).column_names == ["time", "end (aggregate)", "end", "sum"]


@pytest.mark.parametrize("make", [to_arrow, to_pandas])
def test_no_points_are_a_table_without_rows(make) -> None:
    assert len(make([])) == 0


def test_a_field_of_the_name_of_a_tag_has_a_column_of_its_own() -> None:
    made = [Point("m", {"k": "tag"}, {"k": 1, "k (field)": 2}, 0)]

    row = to_arrow(made).to_pylist()[0]

    assert {name: row[name] for name in list(row)[1:]} == {
        "k": "tag",
        "k (field)": 1,
        "k (field) (field)": 2,
    }


def test_numbers_of_both_types_are_floats() -> None:
    column = to_arrow([Point("m", {}, {"v": v}, 0) for v in (1, 2.5)]).column("v")

    assert (column.type, column.to_pylist()) == (pyarrow.float64(), [1.0, 2.5])


@pytest.mark.parametrize(("one", "other"), [("text", 1), (True, 1), (True, 1.5), ("x", False)])
def test_values_of_several_types_are_refused(one: Field, other: Field, tmp_path) -> None:
    made = [Point("m", {}, {"v": v}, 0) for v in (one, other)]

    for make in (to_arrow, to_pandas):
        with pytest.raises(Rejected, match="column 'v' has values of several types"):
            make(made)
    with pytest.raises(ConfigError, match=r"'v' has values of several types.*use \.csv"):
        write_points(tmp_path / "points.parquet", made)


def test_a_time_of_more_than_64_bits_is_refused() -> None:
    with pytest.raises(Rejected, match="column 'end'"):
        to_arrow([Aggregate({}, 0, {"sum": 1}, 2**63)])


def test_a_missing_package_names_its_extra() -> None:
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from sage_flink.tsdb import Point, to_pandas\n"
        "to_pandas([Point('m', {}, {'v': 1}, 0)])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stderr.strip().endswith("tables need pyarrow: pip install 'sage-flink[frames]'")


fields = st.fixed_dictionaries(
    {},
    optional={
        "whole": st.integers(-(2**63), 2**63 - 1),
        "float": st.floats(allow_nan=False, allow_infinity=False),
        "text": st.text(st.characters(codec="utf-8"), max_size=5),
        "flag": st.booleans(),
    },
)
tags = st.dictionaries(st.sampled_from(["a", "b", "whole"]), st.text("xyz", min_size=1), max_size=2)


@settings(deadline=None)
@given(
    st.lists(
        st.builds(Point, st.just("m"), tags, fields, st.integers(TIME_MIN_NS, TIME_MAX_NS)),
        max_size=8,
    )
)
def test_any_points_come_back_from_a_frame(points: list[Point]) -> None:
    frame = to_pandas(points)

    rows = frame.assign(time=frame["time"].astype("int64")).to_dict("records")
    found = [{name: v for name, v in row.items() if not pandas.isna(v)} for row in rows]
    named = {name for point in points for name in point.tags}
    assert found == [
        {"time": point.timestamp_ns}
        | point.tags
        | {f"{k} (field)" if k in named else k: v for k, v in point.fields.items()}
        for point in points
    ]
