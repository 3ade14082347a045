"""A point is a pure function of its record."""

import pytest

from sage_flink.common import PipelineError, Record, Rejected
from sage_flink.operators import Measure, measure


def point(record):
    (value,) = measure("chunks", fields=("tokens", "text"))(record)
    return value


def test_the_same_record_gives_the_same_point():
    record = Record(id="a", value={"tokens": 3, "text": "abcd"}, timestamp_ms=5)

    assert point(record) == point(record)
    assert point(record)["fields"] == {"tokens": 3, "text": 4}
    assert point(record)["timestamp_ns"] // 1_000_000 == 5


def test_tags_are_the_values_of_the_record():
    value = {"n": 1, "lang": None, "tags": ["a"]}

    (made,) = measure("chunks", fields=("n",), tags=("lang", "tags"))(Record("a", value))

    assert (made["tags"]["lang"], made["tags"]["tags"]) == (None, ["a"])


def test_records_of_one_millisecond_are_different_points():
    ids = [f"r{i}" for i in range(2000)]
    points = [point(Record(id=i, value={"tokens": 1, "text": ""})) for i in ids]

    assert len({(p["tags"]["shard"], p["timestamp_ns"]) for p in points}) == len(ids)


@pytest.mark.parametrize("fields", ["tokens", ("",), (1,), ()])
def test_fields_are_names_in_a_tuple(fields):
    with pytest.raises(PipelineError, match="measure: fields must be"):
        Measure("chunks", fields)


def test_a_point_needs_its_fields_and_tags():
    with pytest.raises(Rejected, match="field 'text' is missing"):
        point(Record(id="a", value={"tokens": 1}))
    with pytest.raises(Rejected, match="field 'tokens' must be a number or text, got list"):
        point(Record(id="a", value={"tokens": [], "text": ""}))
    with pytest.raises(Rejected, match="field 'lang' is missing"):
        list(measure("chunks", fields=("n",), tags=("lang",))(Record(id="a", value={"n": 1})))


@pytest.mark.parametrize("year_9999_or_bc", [253_402_300_799_000, -253_402_300_799_000])
def test_a_time_that_a_point_cannot_have_is_rejected(year_9999_or_bc):
    record = Record("a", {"tokens": 1, "text": ""}, timestamp_ms=year_9999_or_bc)

    with pytest.raises(Rejected, match="is not between the years 1677 and 2262"):
        point(record)
