"""Formats of messages: every vector, arbitrary bytes, and the steps that a format adds."""

import asyncio
import math
from typing import Any

import pytest
from format_vectors import VECTORS
from hypothesis import given, settings
from hypothesis import strategies as st
from message_vectors import Vector

import sage_flink as sage
from sage_connectors import Debezium, Fields, Json, Kafka, kafka
from sage_flink import operators
from sage_flink.common import Record
from sage_flink.common.dead_letters import from_message, to_message
from sage_flink.common.records import FailedRecord, decode
from sage_flink.flow.deletes import in_order
from sage_flink.flow.formats import Decode, with_formats
from sage_flink.flow.graph import Call, FlatMap
from sage_flink.flow.lifecycle import open_copy
from sage_flink.flow.ports import OpenContext
from sage_flink.flow.replay import replay
from sage_flink.flow.steps import catch_failure, flat_map_encoded
from sage_flink.testing import ListSink, ListSource


def run(format_: Any, *messages: Record) -> Any:
    graph = sage.flow.read("t", ListSource(messages, format_)).write("out", ListSink())
    return asyncio.run(sage.flow.run(graph, sinks={"out": (sink := InOrder())})), sink


class InOrder(ListSink):
    """A sink that keeps all records, also those of one id."""

    def __init__(self) -> None:
        super().__init__()
        object.__setattr__(self, "all", [])

    def write(self, records: Any) -> Any:
        self.all.extend(records)  # type: ignore[attr-defined]
        return ()


CASES = [
    pytest.param(name, offset, vector, id=f"{name}-{offset}")
    for name, (_, vectors) in VECTORS.items()
    for offset, vector in enumerate(vectors)
]


@pytest.mark.parametrize(("name", "offset", "vector"), CASES)
def test_a_message_becomes_its_records_or_one_dead_letter(
    name: str, offset: int, vector: Vector
) -> None:
    message = vector.message("t", offset)

    outcome, sink = run(VECTORS[name][0], message)

    if isinstance(vector.becomes, str):
        (failed,) = outcome.failed
        assert vector.becomes in failed.reason
        assert (failed.step, failed.record) == ("t", message)
        assert sink.all == []
    else:
        assert outcome.failed == []
        got = [(r.id, r.kind, r.timestamp_ms, r.value) for r in sink.all]
        assert got == list(vector.becomes)
        assert {r.origin for r in sink.all} <= {message.id}
        assert all(type(a[3]) is type(b[3]) for a, b in zip(got, vector.becomes, strict=True))


STEPS = {
    name: FlatMap("t", "t.messages", open_copy(Decode(format_), OpenContext("job", "t")))
    for name, (format_, _) in VECTORS.items()
}


@settings(max_examples=100)
@pytest.mark.parametrize("name", VECTORS)
@given(raw=st.binary(max_size=60), key=st.none() | st.binary(max_size=9))
def test_any_bytes_are_records_or_a_dead_letter(name: str, raw: bytes, key: bytes | None) -> None:
    message = Record("t/0/0", raw, 5, key, {}, "t/0/0")

    made = catch_failure("t", message, lambda: flat_map_encoded(STEPS[name], message))

    if isinstance(made, FailedRecord):
        assert made.record == message
    else:
        assert [decode(each).origin for each in made] == ["t/0/0"] * len(made)


def test_a_sink_with_a_format_gets_messages_and_a_delete_is_a_tombstone() -> None:
    rows = (Record("a", {"n": 1}), Record("b", {"n": 2}, key=b"k"), Record("c", math.nan))
    rows = (*rows, rows[0].delete_of("a", id="a"))
    chunks = rows[0].delete_of("a", version="v2", id="d")
    graph = sage.flow.read("in", ListSource((*rows, chunks))).write(
        "out", kafka("out", format=Json())
    )

    sink = InOrder()
    outcome = asyncio.run(sage.flow.run(graph, sinks={"out": sink}))

    sent = [(r.key, r.value) for r in sink.all]
    assert sent == [(b"a", b'{"n":1}'), (b"k", b'{"n":2}'), (b"a", None)]
    assert [f.record.id for f in outcome.failed] == ["c", "d"]
    assert {f.step for f in outcome.failed} == {"out.encode"}


def test_dead_letters_of_a_source_are_decoded_again_by_a_replay() -> None:
    source = kafka("orders", format=Json(Fields(id="$.id")))
    graph = sage.flow.read("orders", source).flat_map("rows", operators.DropDeletes())
    graph = graph.write("out", kafka("out", format=Json())).dead_letters_to(kafka("dead"))
    message = Record("orders/0/7", b'{"id": 7}', 5, None, {"h": b"x"}, "orders/0/7")
    failed = FailedRecord(message, "orders", "not JSON")
    letter = from_message(to_message(failed, "job").replace(id="dead/0/0"))

    again = replay(graph, [letter]).graph

    assert again is not None
    sinks = {"out": (sink := InOrder()), "replayed-letters": ListSink()}
    asyncio.run(sage.flow.run(again, sinks=sinks))
    assert [(r.key, r.value) for r in sink.all] == [(b"7", b'{"id":7}')]


def test_calls_before_a_sink_of_tombstones_keep_the_order_of_the_rows() -> None:
    for ends, ordered in (((Debezium(), Json()), True), ((Json(), Json()), False)):
        rows = sage.flow.read("rows", kafka("t", format=ends[0]))
        called = rows.call("embed", sage.embed(model="m"), capacity=4, timeout_s=1)
        graph = called.write("out", kafka("out", format=ends[1])).dead_letters_to(kafka("dead"))

        call = in_order(sage.flow.check(graph)).by_name["embed"]

        assert isinstance(call, Call)
        assert call.ordered is ordered


def test_the_format_of_a_topic_stays_when_another_source_stands_for_it() -> None:
    graph = sage.flow.read("t", kafka("t", format=Json())).write("out", ListSink())
    messages = ListSource((Record("t/0/0", b"[1]"),))

    outcome = asyncio.run(sage.flow.run(graph, sources={"t": messages}))

    assert [record.value for record in outcome.written["out"]] == [[1]]


def test_a_format_changes_nothing_but_its_own_steps() -> None:
    graph = sage.flow.read("t", kafka("t", format=Json())).write("out", kafka("out"))

    first, decode, write = with_formats(graph).nodes

    assert first.source == Kafka("t")
    assert isinstance(decode, FlatMap)
    assert write == graph.nodes[-1]
    assert with_formats(with_formats(graph)) == with_formats(graph)
