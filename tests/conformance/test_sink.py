"""Conformance suite of the sinks: idempotent, refusals one by one, write returns once stored."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from delete_shapes import SHAPED_LIKE_DELETES

from sage_flink.common import ConfigError, Record
from sage_flink.db import collection
from sage_flink.tsdb import bucket


def records(case: Any, *numbers: int) -> list[Record]:
    return [Record(f"r{n}", case.value(n), timestamp_ms=1000 + n) for n in numbers]


def test_records_are_stored_when_write_returns(case: Any) -> None:
    writer = case.sink.writer()

    assert list(writer.write(records(case, *range(20)))) == []
    assert case.count() == 20
    writer.close()


def test_writing_a_record_again_changes_no_row(case: Any) -> None:
    writer = case.sink.writer()
    for part in (records(case, 1, 2, 3), records(case, 2, 3, 4), records(case, 4, 4)):
        assert list(writer.write(part)) == []
    writer.close()

    again = case.sink.writer()
    again.write(records(case, 1, 2, 3, 4))

    assert case.count() == 4
    again.close()


@pytest.mark.parametrize("shape", SHAPED_LIKE_DELETES, ids=repr)
def test_a_value_shaped_like_a_delete_is_data(case: Any, shape: Any) -> None:
    writer = case.sink.writer()
    writer.write(records(case, 1, 2))
    value = case.value(3)
    if isinstance(value, dict):
        value |= shape if isinstance(shape, dict) else {"note": shape}

    assert list(writer.write([Record("r3", value, timestamp_ms=1003)])) == []
    refused = writer.write([Record("shape", shape)])

    fits = shape not in case.refuses
    assert [refusal.record.id for refusal in refused] == ([] if fits else ["shape"])
    assert case.count() == (4 if fits else 3)
    writer.close()


def test_threads_may_take_turns_with_a_writer(case: Any) -> None:
    with ThreadPoolExecutor(1) as opener, ThreadPoolExecutor(1) as worker:
        writer = opener.submit(case.sink.writer).result()
        for number in range(3):
            thread = (opener, worker)[number % 2]
            assert list(thread.submit(writer.write, records(case, number)).result()) == []
        worker.submit(writer.close).result()

    assert case.count() == 3


def test_a_record_that_does_not_fit_is_refused_alone(case: Any) -> None:
    for stored, bad in enumerate(case.refuses):
        poison = Record("bad", bad)
        first = 3 * stored
        writer = case.sink.writer()

        refused = writer.write(
            [*records(case, first, first + 1), poison, *records(case, first + 2)]
        )

        assert [refusal.record for refusal in refused] == [poison]
        assert refused[0].reason
        assert case.count() == first + 3
        writer.close()


def test_a_batch_in_which_every_record_is_refused_stores_no_record(case: Any) -> None:
    writer = case.sink.writer()
    refused = [Record(f"r{n}", bad) for n, bad in enumerate(case.refuses)]

    assert [refusal.record for refusal in writer.write(refused)] == refused
    assert list(writer.write([])) == []
    assert case.count() == 0
    writer.close()


def test_a_sink_is_a_value_with_limits(case: Any) -> None:
    assert pickle.loads(pickle.dumps(case.sink)) == case.sink
    assert case.sink.batch.items_max >= 1


def test_the_stores_take_batches_of_500_records_by_default() -> None:
    assert collection("c", dim=2).batch.items_max == bucket("b").batch.items_max == 500


@pytest.mark.parametrize(
    ("spec", "known"),
    [
        (collection("c", dim=2, store="nope"), "memory, milvus"),
        (bucket("b", store="nope"), "influxdb"),
    ],
    ids=["db", "tsdb"],
)
def test_an_unknown_store_names_the_known_ones(spec: Any, known: str) -> None:
    with pytest.raises(ConfigError, match=known):
        spec.open()
