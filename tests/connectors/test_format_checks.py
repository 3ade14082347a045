"""Wrong formats are refused, in Python, in YAML and where a pipeline is checked."""

from typing import Any

import pytest
from schema_vectors import PROTO_SCHEMA

import sage_connectors
import sage_flink as sage
from sage_connectors import Avro, Debezium, Fields, Json, Protobuf, Text, kafka
from sage_flink import db, operators
from sage_flink.common import ConfigError, PipelineError
from sage_flink.testing import ListSource

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
