"""The results of every time-series store make the same tables, and joins of them the same rows."""

import pandas
from pandas.testing import assert_frame_equal

from sage_flink.tsdb import (
    Aggregation,
    Point,
    TimeSeriesStore,
    join_asof,
    join_windows,
    to_arrow,
    to_pandas,
)

SECOND = 10**9
START_NS = 1_700_000_000_123_456_789


def points_of(measurement: str, count: int) -> list[Point]:
    """Points of two hosts, one of which has a field that the other lacks."""
    return [
        Point(
            measurement,
            {"host": "ab"[n % 2]},
            {"n": 2**53 + n, "f": n / 4} | ({"up": n % 4 == 0, "s": f"{n}"} if n % 2 else {}),
            START_NS + n * SECOND,
        )
        for n in range(count)
    ]


def test_points_of_a_query_make_a_frame(series: TimeSeriesStore, measurement: str) -> None:
    series.append(points_of(measurement, 4))

    frame = to_pandas(series.query(measurement))

    expected = pandas.DataFrame(
        {
            "time": pandas.to_datetime([START_NS + n * SECOND for n in range(4)], utc=True),
            "host": pandas.array(["a", "b", "a", "b"], "string"),
            "f": [0.0, 0.25, 0.5, 0.75],
            "n": pandas.array([2**53 + n for n in range(4)], "Int64"),
            "s": pandas.array([None, "1", None, "3"], "string"),
            "up": pandas.array([None, False, None, False], "boolean"),
        }
    )
    assert_frame_equal(frame, expected)


def test_aggregates_make_a_table(series: TimeSeriesStore, measurement: str) -> None:
    series.append(points_of(measurement, 6))
    windows = Aggregation(("count", "max", "rate"), 4 * SECOND, by=("host",))
    sessions = Aggregation(("last",), by=("host",), session_gap_ns=2 * SECOND)

    table = to_arrow(series.aggregate(measurement, "n", windows, start_ns=0))
    ends = to_pandas(series.aggregate(measurement, "f", sessions, start_ns=0))

    assert {column.name: str(column.type) for column in table.schema} == {
        "time": "timestamp[ns, tz=UTC]",
        "host": "string",
        "count": "int64",
        "max": "int64",
        "rate": "double",
    }
    assert table.column("max").to_pylist()[-1] == 2**53 + 5
    assert (ends["end"] - ends["time"]).dt.total_seconds().tolist() == [6.0, 6.0]


def test_series_of_a_store_are_joined(series: TimeSeriesStore, measurement: str) -> None:
    other = f"{measurement}other"
    series.append(points_of(measurement, 6))
    series.append(
        [Point(other, {"host": "a"}, {"w": 2**60 + n}, START_NS + n * SECOND + 5) for n in (0, 3)]
    )
    windows = Aggregation(("count",), 2 * SECOND, by=("host",))
    try:
        left, right = series.query(measurement), series.query(other)
        counts = [
            series.aggregate(name, field, windows, start_ns=0)
            for name, field in ((measurement, "n"), (other, "w"))
        ]
    finally:
        if hasattr(series, "drop"):
            series.drop(other)

    nearest = join_asof(left, right, by=("host",), direction="nearest", tolerance_ns=2 * SECOND)
    equal = join_windows(*counts, by=("host",), how="left")

    assert nearest["w"].tolist() == [
        *[2**60, pandas.NA, 2**60 + 3, pandas.NA, 2**60 + 3, pandas.NA],
    ]
    assert len(equal) == len(counts[0])
    assert equal["count_right"].sum() == 2
