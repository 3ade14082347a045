"""Messages of each format and what they become: the same on every target."""

from typing import Any

from envelope_vectors import CLOUD_EVENTS, DEBEZIUM, DEBEZIUM_TYPES
from message_vectors import Vector
from plain_vectors import (
    CSV,
    CSV_HEADER,
    EXPLODED,
    EXPLODED_PLACES,
    JSON,
    JSON_VALUES,
    RAW,
    TEXT,
)
from schema_vectors import (
    AVRO,
    AVRO_NAN,
    AVRO_RECURSIVE,
    AVRO_SCHEMA,
    PROTO_SCHEMA,
    PROTOBUF,
    RECURSIVE,
)

from sage_connectors import Avro, CloudEvents, Csv, Debezium, Fields, Json, Protobuf, Raw, Text

DOCUMENT = Fields(
    id="$.id",
    event_time="$.at",
    text="$.body",
    title="$.head",
    delete="$.gone",
)
LINES = Fields(explode="$.lines", id="@.sku", key="$.customer", event_time="$.at")
_TYPED = Fields(id="$.id", event_time="$.at")
#: Name -> the format, and its messages.
VECTORS: dict[str, tuple[Any, list[Vector]]] = {
    "json": (Json(DOCUMENT), JSON),
    "json-values": (Json(), JSON_VALUES),
    "json-exploded": (Json(LINES), EXPLODED),
    "json-places": (Json(Fields(explode="$")), EXPLODED_PLACES),
    "csv": (Csv(columns=("id", "name"), fields=Fields(id="$.id")), CSV),
    "csv-header": (
        Csv(delimiter=";", fields=Fields(event_time="$.at", time_format="epoch_s")),
        CSV_HEADER,
    ),
    "text": (Text(Fields(id="key", text="$"), encoding="utf-16"), TEXT),
    "raw": (Raw(), RAW),
    "debezium": (Debezium(), DEBEZIUM),
    "debezium-types": (Debezium(), DEBEZIUM_TYPES),
    "cloud-events": (CloudEvents(), CLOUD_EVENTS),
    "avro": (Avro(AVRO_SCHEMA, fields=_TYPED), AVRO),
    "avro-recursive": (Avro(AVRO_RECURSIVE), RECURSIVE),
    "avro-infinity": (Avro('"double"'), AVRO_NAN),
    "protobuf": (Protobuf(PROTO_SCHEMA, fields=_TYPED), PROTOBUF),
}


def without_parser_words(reason: str) -> str:
    """A reason without the words of a JSON parser, of which each target has its own."""
    parsers = ("not JSON:", "a whole number has", "the record cannot be", "the value is nested")
    is_parser = reason.startswith(parsers)
    return "not JSON" if is_parser else reason
