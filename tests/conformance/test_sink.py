"""What every sink's writer promises: idempotent, refusals alone, back only once stored."""

import pickle
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from sage_flink.common import ConfigError, Record
from sage_flink.db import collection
from sage_flink.db import memory as vectors_in_memory
from sage_flink.db.vectors import packed
from sage_flink.flow.ports import Sink
from sage_flink.tsdb import bucket
from sage_flink.tsdb import memory as series_in_memory


@dataclass(frozen=True)
class Case:
    """A sink, a good value by number, a value that it cannot take, and how many it holds."""

    sink: Sink
    value: Callable[[int], Any]
    bad: Any
    held: Callable[[], int]


@contextmanager
def vectors(store: str) -> Iterator[Case]:
    spec = collection(f"conformance_{uuid.uuid4().hex}", dim=2, store=store)

    def value(n: int) -> Any:
        return {"vector": packed([1.0, n]), "text": f"text {n}", "id": "gives way"}

    yield Case(spec, value, {"vector": packed([1.0])}, lambda: spec.open().count())
    vectors_in_memory.forget(spec.name)
    if store != "memory":
        spec.open().drop()  # type: ignore[attr-defined]


@contextmanager
def points(store: str) -> Iterator[Case]:
    name = f"m{uuid.uuid4().hex}"
    spec = bucket("conformance", store=store)

    def value(n: int) -> Any:
        return {"measurement": name, "tags": {"n": str(n)}, "fields": {"v": float(n)}}

    def held() -> int:
        opened = spec.open()
        count = opened.count(name)
        opened.close()
        return count

    yield Case(spec, value, {"measurement": name, "fields": {}}, held)
    series_in_memory.forget(spec.name)
    if store != "memory":
        opened = spec.open()
        opened.drop(name)  # type: ignore[attr-defined]
        opened.close()


Open = Callable[[], AbstractContextManager[Case]]
SERVICE = pytest.mark.service
SINKS = [
    pytest.param(lambda: vectors("memory"), id="vectors-memory"),
    pytest.param(lambda: vectors("milvus"), id="vectors-milvus", marks=SERVICE),
    pytest.param(lambda: points("memory"), id="points-memory"),
    pytest.param(lambda: points("influxdb"), id="points-influxdb", marks=SERVICE),
]


@pytest.fixture(params=SINKS)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    opened: Open = request.param
    with opened() as made:
        yield made


def records(case: Case, *numbers: int) -> list[Record]:
    return [Record(f"r{n}", case.value(n), timestamp_ms=1000 + n) for n in numbers]


def test_what_is_written_is_held_when_write_returns(case: Case) -> None:
    writer = case.sink.writer()

    assert list(writer.write(records(case, *range(20)))) == []
    assert case.held() == 20
    writer.close()


def test_writing_a_record_again_changes_nothing(case: Case) -> None:
    writer = case.sink.writer()
    for part in (records(case, 1, 2, 3), records(case, 2, 3, 4), records(case, 4, 4)):
        assert list(writer.write(part)) == []
    writer.close()

    again = case.sink.writer()
    again.write(records(case, 1, 2, 3, 4))

    assert case.held() == 4
    again.close()


@pytest.mark.parametrize("bad", [None, "text", 7, [], {}, {"vector": "text"}, "the sink's own"])
def test_a_record_that_fits_not_is_refused_alone(case: Case, bad: Any) -> None:
    value = case.bad if bad == "the sink's own" else bad
    guilty = Record("bad", value)
    writer = case.sink.writer()

    refused = writer.write([*records(case, 1, 2), guilty, *records(case, 3)])

    assert [refusal.record for refusal in refused] == [guilty]
    assert refused[0].reason
    assert case.held() == 3
    writer.close()


def test_a_batch_of_nothing_but_refusals_stores_nothing(case: Case) -> None:
    writer = case.sink.writer()

    assert len(writer.write([Record("a", None), Record("b", case.bad)])) == 2
    assert list(writer.write([])) == []
    assert case.held() == 0
    writer.close()


def test_a_sink_is_a_value_with_limits(case: Case) -> None:
    assert pickle.loads(pickle.dumps(case.sink)) == case.sink
    assert case.sink.batch.items_max == 500


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
