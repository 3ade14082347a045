"""A point is a pure function of its record."""

from sage_flink.common import Record
from sage_flink.operators import measure


def point(record):
    (value,) = measure("chunks", fields=("tokens", "text"))(record)
    return value


def test_the_same_record_makes_the_same_point():
    record = Record(id="a", value={"tokens": 3, "text": "abcd"}, timestamp_ms=5)

    assert point(record) == point(record)
    assert point(record)["fields"] == {"tokens": 3, "text": 4}
    assert point(record)["timestamp_ns"] // 1_000_000 == 5


def test_records_of_one_millisecond_are_different_points():
    ids = [f"r{i}" for i in range(2000)]
    points = [point(Record(id=i, value={"tokens": 1, "text": ""})) for i in ids]

    assert len({(p["tags"]["shard"], p["timestamp_ns"]) for p in points}) == len(ids)
