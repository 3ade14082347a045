"""Avro and Protobuf with a real schema registry: evolving schemas, outages, unknown ids."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis_server import free_port
from schema_registry import program, schema_registry

import sage_flink as sage
from sage_connectors import Avro, Debezium, Fields, Protobuf, kafka
from sage_connectors.formats.schema_registry import frame, read_frame
from sage_flink.common import ConfigError, Record
from sage_flink.testing import ListSink, ListSource

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: Any) -> Iterator[str]:
    with schema_registry(tmp_path_factory.mktemp("registry")) as url:
        yield url


@pytest.fixture
def topic() -> str:
    return f"t-{time.time_ns()}"


def avro(*fields: str, name: str = "Tree") -> str:
    return json.dumps(
        {"type": "record", "name": name, "fields": [json.loads(field) for field in fields]}
    )


ID = '{"name": "id", "type": "int"}'
ID_LONG = '{"name": "id", "type": "long"}'
NAME = '{"name": "name", "type": "string"}'
HEIGHT = '{"name": "height", "type": "float", "default": 1.5}'
HEIGHT_DOUBLE = '{"name": "height", "type": "double", "default": 1.5}'
OLD = avro(ID, NAME)
ADDED = avro(ID, NAME, HEIGHT)
NEW = avro(ID_LONG, HEIGHT_DOUBLE)


def message(topic: str, offset: int, value: bytes | None, key: bytes | None = None) -> Record:
    place = f"{topic}/0/{offset}"
    return Record(place, value, 5, key, {}, place)


def decoded(format_: Any, *messages: Record) -> Any:
    graph = sage.flow.read("in", ListSource(messages, format_)).write("out", ListSink())
    outcome = asyncio.run(sage.flow.run(graph))
    return [record.value for record in outcome.written["out"]], outcome.failed


def set_compatibility(registry: str, topic: str, level: str) -> None:
    body = {"compatibility": level}
    httpx.put(f"{registry}/config/{topic}-value", json=body, verify=False).raise_for_status()


def test_avro_of_three_schemas_is_read_as_any_of_them(registry: str, topic: str) -> None:
    rows = [
        (OLD, {"id": 1, "name": "oak"}),
        (ADDED, {"id": 2, "name": "elm", "height": 2.5}),
        (NEW, {"id": 2**40, "height": 0.1}),
    ]
    messages = [
        message(topic, n, Avro(schema, registry).encoder(topic)(Record("", value)))
        for n, (schema, value) in enumerate(rows)
    ]
    assert len({read_frame(each.value).schema_id for each in messages}) == 3

    own, _ = decoded(Avro(registry=registry), *messages)
    latest, _ = decoded(Avro("latest", registry), *messages)
    declared, _ = decoded(Avro(NEW, registry), *messages)
    first, failed = decoded(Avro(OLD, registry), *messages)

    assert own == [value for _, value in rows]
    assert (
        latest
        == declared
        == [
            {"id": 1, "height": 1.5},
            {"id": 2, "height": 2.5},
            {"id": 2**40, "height": 0.1},
        ]
    )
    assert first == [{"id": 1, "name": "oak"}, {"id": 2, "name": "elm"}]
    assert "not Avro of its schema" in failed[0].reason
    assert failed[0].record == messages[2]


PROTO_OLD = """syntax = "proto3";
message Other { string x = 1; }
message Outer {
  message Tree { int32 id = 1; string name = 2; string gone = 3; }
}
"""
PROTO_NEW = """syntax = "proto3";
message Other { string x = 1; }
message Outer {
  message Tree { int64 id = 1; string name = 2; double height = 4; optional string note = 5; }
}
"""


def test_protobuf_of_two_schemas_is_read_as_either(registry: str, topic: str) -> None:
    old = Protobuf(PROTO_OLD, "Outer.Tree", registry)
    new = Protobuf(PROTO_NEW, "Outer.Tree", registry)
    first = old.encoder(topic)(Record("", {"id": 1, "name": "oak", "gone": "x"}))
    second = new.encoder(topic)(Record("", {"id": 2**40, "name": "elm", "height": 2.5}))
    messages = [message(topic, 0, first), message(topic, 1, second)]
    assert read_frame(first).payload[:3] == b"\x04\x02\x00"  # two indexes: 1, then 0

    own, _ = decoded(Protobuf(registry=registry), *messages)
    latest, failed = decoded(Protobuf("latest", registry=registry), *messages)
    declared, _ = decoded(new, *messages)

    assert own == [
        {"id": 1, "name": "oak", "gone": "x"},
        {"id": 2**40, "name": "elm", "height": 2.5, "note": None},
    ]
    assert failed == []
    assert (
        latest
        == declared
        == [
            {"id": 1, "name": "oak", "height": 0.0, "note": None},
            {"id": 2**40, "name": "elm", "height": 2.5, "note": None},
        ]
    )


def test_what_is_no_message_of_the_registry_is_a_dead_letter(registry: str, topic: str) -> None:
    good = Avro(OLD, registry).encoder(topic)(Record("", {"id": 1, "name": "oak"}))
    protobuf = Protobuf(PROTO_OLD, registry=registry).encoder(f"{topic}-p")(Record("", {"x": "a"}))
    raw = [b"{}", b"", b"\x00\x00", frame(987_654, b""), good[:-1], protobuf, good]

    values, failed = decoded(
        Avro(registry=registry), *(message(topic, n, each) for n, each in enumerate(raw))
    )

    assert values == [{"id": 1, "name": "oak"}]
    assert [f.record.value for f in failed] == raw[:-1]
    assert "does not know schema 987654" in failed[3].reason
    assert "is PROTOBUF, not AVRO" in failed[5].reason


def test_an_incompatible_schema_is_refused_where_the_job_is_submitted(
    registry: str, topic: str
) -> None:
    Avro(OLD, registry).encoder(topic)
    set_compatibility(registry, topic, "BACKWARD")
    changed = avro('{"name": "id", "type": "string"}')

    with pytest.raises(ConfigError, match="refuses it: 409"):
        Avro(changed, registry).encoder(topic)
    with pytest.raises(ConfigError, match="does not know this schema"):
        Avro(changed, registry, register=False).encoder(topic)
    known = Avro(OLD, registry, register=False).encoder(topic)

    assert read_frame(known(Record("", {"id": 1, "name": "x"}))).payload == b"\x02\x02x"


def test_debezium_in_avro_has_ids_types_and_deletes(registry: str, topic: str) -> None:
    row = """{"type": "record", "name": "Value", "fields": [
      {"name": "id", "type": "int"},
      {"name": "born", "type": {"type": "int", "connect.name": "io.debezium.time.Date"}},
      {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 5,
                                 "scale": 2}}]}"""
    envelope = f"""{{"type": "record", "name": "Envelope", "fields": [
      {{"name": "before", "type": ["null", {row}], "default": null}},
      {{"name": "after", "type": ["null", "Value"], "default": null}},
      {{"name": "op", "type": "string"}},
      {{"name": "source", "type": {{"type": "record", "name": "Source", "fields": [
        {{"name": "ts_ms", "type": "long"}}]}}}}]}}"""
    of_key = Avro(avro(ID, name="Key"), registry, subject=f"{topic}-key").encoder(topic)
    of_value = Avro(envelope, registry).encoder(topic)
    key = of_key(Record("", {"id": 7}))
    values = {"id": 7, "born": "2024-05-01", "price": "12.50"}
    changes = [
        {"before": None, "after": {**values, "born": 19_844}, "op": "c", "source": {"ts_ms": 8}},
        {"before": None, "after": None, "op": "d", "source": {"ts_ms": 9}},
    ]
    messages = [
        message(topic, n, of_value(Record("", each)), key) for n, each in enumerate(changes)
    ]
    messages.append(message(topic, 2, None, key))

    decode = Debezium(avro=Avro(registry=registry)).decoder()
    records = [record for each in messages for record in decode(each)]

    assert [(r.id, r.kind, r.timestamp_ms, r.value) for r in records] == [
        ("7", "upsert", 8, values),
        ("7", "delete", 9, None),
        ("7", "delete", 5, None),
    ]


def test_a_step_waits_for_a_registry_that_is_away(tmp_path: Path, topic: str) -> None:
    program()
    port = free_port()
    url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
    graph = sage.flow.read("in", ListSource((Record("a", {"id": 1, "name": "oak"}),)))
    graph = graph.write("out", kafka(topic, format=Avro(OLD, url)))
    sink, stop = ListSink(), threading.Event()

    def start_late() -> None:
        time.sleep(1)
        with schema_registry(tmp_path, port):
            stop.wait(60)

    server = threading.Thread(target=start_late)
    server.start()
    try:
        outcome = asyncio.run(sage.flow.run(graph, sinks={"out": sink}))
        (sent,) = sink.rows.values()
        values, _ = decoded(Avro(registry=url), message(topic, 0, sent.value))
    finally:
        stop.set()
        server.join()

    assert outcome.failed == []
    assert values == [{"id": 1, "name": "oak"}]


def test_a_tombstone_needs_no_schema() -> None:
    decode = Avro(registry="http://127.0.0.1:1", fields=Fields(id="$.id")).decoder()

    (record,) = decode(message("t", 0, None, b"7"))

    assert (record.kind, record.document) == ("delete", "7")
