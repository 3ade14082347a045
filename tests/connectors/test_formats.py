"""Formats of messages: every vector, round trips, and arbitrary bytes."""

import asyncio
import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from format_vectors import AVRO_SCHEMA, PROTO_SCHEMA, VECTORS, Vector
from hypothesis import given, settings
from hypothesis import strategies as st

import sage_connectors
import sage_flink as sage
from sage_connectors import Avro, Debezium, Fields, Json, Kafka, Protobuf, Raw, Text, kafka
from sage_connectors.formats.times import timestamp_ms
from sage_flink import db, operators
from sage_flink.common import ConfigError, PipelineError, Record, Rejected
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


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
    max_leaves=20,
)


@given(value=TREES)
def test_json_written_is_read_as_the_same_value(value: Any) -> None:
    format_ = Json()

    raw = format_.encoder("t")(Record("a", value))

    assert json.loads(raw) == value
    (record,) = format_.decoder()(Record("t/0/0", raw))
    assert record.value == value


@given(
    id_=st.integers(-(2**63), 2**63 - 1),
    cents=st.integers(-(10**8), 10**8),
    note=st.none() | st.text(),
)
def test_avro_written_is_read_as_the_same_value(id_: int, cents: int, note: str | None) -> None:
    format_ = Avro(AVRO_SCHEMA)
    price = f"{'-' * (cents < 0)}{abs(cents) // 100}.{abs(cents) % 100:02}"
    value = {"id": id_, "price": price, "at": "2024-05-01T12:00:00.500000Z", "note": note}

    raw = format_.encoder("t")(Record("a", value))

    (record,) = format_.decoder()(Record("t/0/0", raw))
    assert record.value == value


PROTO = Protobuf(PROTO_SCHEMA)
DECODE_PROTO, ENCODE_PROTO = PROTO.decoder(), PROTO.encoder("t")


@given(
    id_=st.integers(-(2**63), 2**63 - 1),
    name=st.text(),
    height=st.none() | st.floats(allow_nan=False),
    kinds=st.lists(st.sampled_from(["NONE", "OAK", 7]), max_size=3),
    counts=st.dictionaries(st.text(), st.integers(0, 2**64 - 1), max_size=3),
    raw=st.binary(),
    inner=st.none() | st.fixed_dictionaries({"ok": st.booleans()}),
)
def test_protobuf_written_is_read_as_the_same_value(**value: Any) -> None:
    value = {"id": value.pop("id_"), **value, "at": "2024-05-01T12:00:00.500000Z"}

    raw = ENCODE_PROTO(Record("a", value))

    (record,) = DECODE_PROTO(Record("t/0/0", raw))
    assert record.value == value


@pytest.mark.parametrize(
    ("format_", "value", "reason"),
    [
        (Json(), math.nan, "JSON cannot hold"),
        (Json(), {"a": [math.inf]}, "JSON cannot hold"),
        (Json(), {(1, 2): "a"}, "JSON cannot hold"),
        (Text(), 7, "must be text"),
        (Text(encoding="latin-1"), "€", "no form in latin-1"),
        (Raw(), "text", "must be bytes"),
        (Avro(AVRO_SCHEMA), {"id": "x"}, "not of the schema"),
        (Avro('"int"'), 2**31, "not of the schema"),
        (PROTO, {"id": "x"}, "not of wood.Tree"),
        (PROTO, {"id": 2**63}, "not of wood.Tree"),
        (PROTO, {"id": True}, "not of wood.Tree"),
        (PROTO, {"unknown": 1}, "no field 'unknown'"),
        (PROTO, {"kinds": ["BIRCH"]}, "no value 'BIRCH'"),
        (PROTO, [], "must be named fields"),
    ],
)
def test_a_value_that_the_format_cannot_hold_is_rejected(
    format_: Any, value: Any, reason: str
) -> None:
    with pytest.raises(Rejected, match=reason):
        format_.encoder("t")(Record("a", value))


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


YAML = """
steps:
  - read: orders
    from: {kafka: {topic: orders, format: {json: {fields: {id: $.id, explode: "$.lines"}}}}}
  - read: rows
    from: {kafka: {topic: rows, format: {debezium: {avro: {registry: "http://r:8081"}}}}}
  - read: lines
    from: {kafka: {topic: lines, format: {csv: {columns: [a, b]}}}}
  - read: plain
    from: {kafka: {topic: plain, format: text}}
  - union: all
    inputs: [orders, rows, lines, plain]
  - write: out
    input: all
    into: {kafka: {topic: out, format: {avro: {schema: '"string"'}}}}
dead_letters: {kafka: {topic: dead}}
"""


def test_formats_have_a_yaml_form() -> None:
    words = sage.flow.vocabulary(sage_connectors, db, operators)

    graph = sage.flow.from_yaml(YAML, words)

    assert sage.flow.from_yaml(sage.flow.to_yaml(graph, words), words) == graph
    names = [node.name for node in sage.flow.check(graph).nodes]
    assert names[:2] == ["orders.messages", "orders"]
    assert names[-2:] == ["out.encode", "out"]
    assert graph.by_name["lines"].source == kafka("lines", format=sage_connectors.Csv(("a", "b")))


@pytest.mark.parametrize(
    ("spelled", "reason"),
    [
        ("{xml: {}}", "format must be one of avro, cloud_events, csv"),
        ("{json: {fields: {id: id}}}", "must be a path such as"),
        ("{json: {paths: 1}}", "unknown field 'paths'"),
        ("{avro: {}}", "needs schema"),
    ],
)
def test_a_wrong_format_in_yaml_names_its_step(spelled: str, reason: str) -> None:
    words = sage.flow.vocabulary(sage_connectors, db, operators)
    text = f"steps: [{{read: orders, from: {{kafka: {{topic: t, format: {spelled}}}}}}}]"

    with pytest.raises(PipelineError, match=f"step 'orders'.*{reason}"):
        sage.flow.from_yaml(text, words)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fields(id="id"),
        lambda: Fields(id="$..id"),
        lambda: Fields(id="$.a[*]"),
        lambda: Fields(id="$.a."),
        lambda: Fields(delete="$.gone"),
        lambda: Fields(title="$.t"),
        lambda: Fields(time_format="unix"),
        lambda: Text(encoding="klingon"),
        lambda: Avro(),
        lambda: Avro("latest"),
        lambda: Avro("{"),
        lambda: Avro('{"type": "recrd"}'),
        lambda: Avro('{"type": "array", "items": "null"}'),
        lambda: Avro('{"type": "array", "items": {"type": "record", "name": "E", "fields": []}}'),
        lambda: Avro(registry="localhost:8081"),
        lambda: Avro(registry="http://user:secret@r"),
        lambda: Protobuf(),
        lambda: Protobuf("message {").decoder(),
        lambda: Protobuf(PROTO_SCHEMA, message="wood.Bush").decoder(),
        lambda: Debezium(Fields(id="$.id")),
        lambda: kafka("a,b", format=Debezium()),
        lambda: Debezium(avro=Avro('"int"')),
    ],
)
def test_a_wrong_format_is_refused_where_it_is_made(make: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        make()

    assert "secret" not in str(refused.value)


def test_formats_that_cannot_be_written_and_formatted_dead_letters_are_refused() -> None:
    stream = sage.flow.read("in", ListSource(()))

    with pytest.raises(PipelineError, match="step 'out': format must be one that can be written"):
        sage.flow.check(stream.write("out", kafka("t", format=Debezium())))
    with pytest.raises(PipelineError, match="dead letters have a form of their own"):
        sage.flow.check(stream.write("o", kafka("t")).dead_letters_to(kafka("d", format=Json())))


def test_a_source_with_deletes_needs_a_sink_that_takes_them() -> None:
    source = kafka("t", format=Debezium())
    dead = kafka("dead")

    graph = sage.flow.read("rows", source).write("out", kafka("out")).dead_letters_to(dead)
    with pytest.raises(PipelineError, match="does not support deletes, and step 'rows' emits them"):
        sage.flow.check(graph)

    taken = sage.flow.read("rows", source).write("out", kafka("out", format=Json()))
    assert sage.flow.check(taken.dead_letters_to(dead))


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


@given(st.integers(-(2**62), 2**62))
def test_times_are_rounded_down_in_each_unit(number: int) -> None:
    assert timestamp_ms(number, "epoch_ms") == timestamp_ms(str(number), "epoch_ms") == number
    assert timestamp_ms(number, "epoch_us") == number // 1000


@given(st.datetimes())
def test_times_in_iso_8601_are_read_in_utc(at: Any) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = (at.replace(tzinfo=UTC) - epoch) // timedelta(milliseconds=1)
    assert timestamp_ms(at.isoformat(), "auto") == expected
    assert timestamp_ms(f"{at.isoformat()}Z", "iso_8601") == expected
