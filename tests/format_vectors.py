"""Messages of each format and what they become: the same on every target."""

import struct
from dataclasses import dataclass
from typing import Any

from sage_connectors import Avro, CloudEvents, Csv, Debezium, Fields, Json, Protobuf, Raw, Text
from sage_flink.common import Record

DOCUMENT = Fields(
    id="$.id",
    event_time="$.at",
    text="$.body",
    title="$.head",
    delete="$.gone",
)
LINES = Fields(explode="$.lines", id="@.sku", key="$.customer", event_time="$.at")


@dataclass(frozen=True)
class Vector:
    """One message; ``becomes`` are (id, kind, timestamp, value), or a part of the reason."""

    value: bytes | None
    becomes: tuple[tuple[Any, ...], ...] | str
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    def message(self, topic: str, offset: int) -> Record:
        place = f"{topic}/0/{offset}"
        return Record(place, self.value, 5, self.key, dict(self.headers), place)


def upsert(id_: str, value: Any, timestamp_ms: int = 5) -> tuple[Any, ...]:
    return (id_, "upsert", timestamp_ms, value)


def delete(id_: str, timestamp_ms: int = 5) -> tuple[Any, ...]:
    return (id_, "delete", timestamp_ms, None)


def doc(id_: str, text: str, title: str = "", at: int = 5) -> tuple[Any, ...]:
    return upsert(id_, {"doc": id_, "title": title or id_, "text": text}, at)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


JSON = [
    Vector(b'{"id": "a", "body": "Oak"}', (doc("a", "Oak"),)),
    Vector(b'\xef\xbb\xbf{"id": 7, "body": "Oak", "at": 9}', (doc("7", "Oak", at=9),)),
    Vector(b'{"id": "a", "body": "x", "head": " "}', (doc("a", "x"),)),
    Vector(b'{"id": "a", "body": "x", "head": "H"}', (doc("a", "x", "H"),)),
    Vector(
        b'{"id": "a", "body": "x", "at": "1970-01-01T01:00:00.0029+01:00"}',
        (doc("a", "x", at=2),),
    ),
    Vector(b'{"id": "a", "gone": true}', (delete("a"),)),
    Vector(b'{"id": "a", "gone": "D", "at": -1}', (delete("a", -1),)),
    Vector(b'{"id": "a", "gone": "false", "body": "x"}', (doc("a", "x"),)),
    Vector(None, (delete("k"),), key=b"k"),
    Vector(None, "no key"),
    Vector(None, "UTF-8", key=b"\xff"),
    Vector(b'{"body": "x"}', "$.id must be text or a whole number, got None"),
    Vector(b'{"id": null, "body": "x"}', "$.id must be"),
    Vector(b'{"id": 1.5, "body": "x"}', "$.id must be"),
    Vector(b'{"id": true, "body": "x"}', "$.id must be"),
    Vector(b'{"id": " ", "body": "x"}', "$.id must be"),
    Vector(b'{"id": "%s", "body": "x"}' % (b"x" * 600), "$.id has 600 bytes"),
    Vector(b'{"id": "a", "body": 7}', "$.body must be text"),
    Vector(b'{"id": "a", "body": "x", "at": "soon"}', "the event time must be auto"),
    Vector(b'{"id": "a", "body": "x", "at": 9223372036854775808}', "64 bits"),
    Vector(b"[1]", "$.id must be"),
    Vector(b'{"id": "a"', "not JSON"),
    Vector(b"\xff", "not valid UTF-8 at byte 0"),
    Vector(b"", "not JSON"),
]
JSON_VALUES = [
    Vector(b'{"n": 18446744073709551615}', (upsert("t/0/0", {"n": 2**64 - 1}),)),
    Vector(b'[1, 2.0, null, "\\u00e9"]', (upsert("t/0/1", [1, 2.0, None, "é"]),)),
    Vector(b'{"a": 1, "a": 2}', (upsert("t/0/2", {"a": 2}),)),
    Vector(b"1e308", (upsert("t/0/3", 1e308),)),
    Vector(b"[" * 100 + b"]" * 100, (upsert("t/0/4", nested(100)),)),
    Vector(b"[" * 102 + b"]" * 102, "nested more than 100 deep"),
    Vector(b"[" * 100_000 + b"]" * 100_000, "not JSON"),
    Vector(b'{"n": 18446744073709551616}', "the record cannot be encoded"),
    Vector(b"NaN", "not JSON"),
    Vector(b"[Infinity]", "not JSON"),
    Vector(b"1e400", "not JSON"),
    Vector(b'"\\ud800"', "not JSON"),
    Vector(None, "a tombstone", key=b"k"),
]
EXPLODED = [
    Vector(
        b'{"customer": "c", "at": 9, "lines": [{"sku": "a"}, {"sku": "b"}]}',
        (upsert("a", {"sku": "a"}, 9), upsert("b", {"sku": "b"}, 9)),
    ),
    Vector(b'{"lines": []}', ()),
    Vector(b'{"lines": null}', ()),
    Vector(b"{}", ()),
    Vector(b'{"lines": {"sku": "a"}}', "$.lines must be an array"),
    Vector(b'{"lines": [{"sku": "a"}, {}]}', "@.sku must be"),
]
EXPLODED_PLACES = [
    Vector(b"[7, 8]", (upsert("t/0/0/0", 7), upsert("t/0/0/1", 8))),
]
CSV = [
    Vector(b'7,"Oak, ""old"""', (upsert("7", {"id": "7", "name": 'Oak, "old"'}),)),
    Vector(
        b"7,\r\n8,Elm\r\n",
        (upsert("7", {"id": "7", "name": ""}), upsert("8", {"id": "8", "name": "Elm"})),
    ),
    Vector(b"7", "a row has 1 values for 2 columns"),
    Vector(b'7,"Oak', "not CSV"),
    Vector(b"\xff,x", "not valid utf-8"),
    Vector(b",x", "$.id must be"),
]
CSV_HEADER = [
    Vector(
        b"id;at\n7;1700000000",
        (upsert("t/0/0", {"id": "7", "at": "1700000000"}, 1_700_000_000_000),),
    ),
    Vector(
        b"id;at\n1;1\n2;2.5",
        (
            upsert("t/0/1/0", {"id": "1", "at": "1"}, 1000),
            upsert("t/0/1/1", {"id": "2", "at": "2.5"}, 2500),
        ),
    ),
    Vector(b"", "the first row must name the columns"),
    Vector(b"id;id\n1;2", "the first row must name the columns"),
]
TEXT = [
    Vector("Grün".encode("utf-16"), (doc("k", "Grün"),), key=b"k"),
    Vector(b"x", "not valid utf-16", key=b"k"),
    Vector(b"x\x00", "no key"),
]
RAW = [Vector(b"\x00\xff", (upsert("t/0/0", b"\x00\xff"),)), Vector(None, (upsert("t/0/1", None),))]


def change(op: str, after: str = "null", extra: str = "") -> bytes:
    return (
        f'{{"before": null, "after": {after}, "op": "{op}", "ts_ms": 99, '
        f'"source": {{"ts_ms": 8, "table": "trees"}}{extra}}}'
    ).encode()


DEBEZIUM = [
    *(
        Vector(change(op, '{"id": 7, "n": 1}'), (upsert("7", {"id": 7, "n": 1}, 8),), b'{"id": 7}')
        for op in "cru"
    ),
    Vector(change("d"), (delete("7", 8),), b'{"id": 7}'),
    Vector(None, (delete("7"),), b'{"id": 7}'),
    Vector(change("c", '{"a": 1}'), (upsert('[1,"x/y"]', {"a": 1}, 8),), b'{"a": 1, "b": "x/y"}'),
    Vector(change("m"), ()),
    Vector(b'{"ts_ms": 1}', (), b'{"serverName": "s"}'),
    Vector(
        b'{"source": {}, "databaseName": "d", "ddl": "ALTER TABLE"}', (), b'{"databaseName": "d"}'
    ),
    Vector(b'{"status": "BEGIN", "id": "571", "event_count": null}', (), b'{"id": "571"}'),
    Vector(change("t"), "the table was truncated"),
    Vector(change("x", "{}"), "'op' is 'x'", b'{"id": 7}'),
    Vector(change("c"), "'after' must be a row", b'{"id": 7}'),
    Vector(change("c", "{}"), "the table needs a primary key"),
    Vector(change("c", "{}"), "'id' of the primary key is None", b'{"id": null}'),
    Vector(change("c", "{}"), "must hold the primary key's columns", b'"7"'),
    Vector(change("c", "{}"), "not JSON", b"7 7"),
    Vector(b'{"id": 7}', "'op' is None", b'{"id": 7}'),
    Vector(b"[]", "not a change event", b'{"id": 7}'),
]


def _with_schema(value: str, schema: str) -> bytes:
    row = f'{{"type": "struct", "optional": true, "fields": [{schema}]}}'
    envelope = f'{{"type": "struct", "fields": [{row[:-1]}, "field": "after"}}]}}'
    return f'{{"schema": {envelope}, "payload": {{"op": "c", "after": {{"v": {value}}}}}}}'.encode()


def _typed(value: str, kind: str, name: str = "", more: str = "") -> bytes:
    named = f', "name": "{name}"' if name else ""
    return _with_schema(value, f'{{"field": "v", "type": "{kind}"{named}{more}}}')


KEY = (
    b'{"schema": {"type": "struct", "fields": [{"field": "id", "type": "int32"}]},'
    b' "payload": {"id": 7}}'
)
CONNECT, DBZ = "org.apache.kafka.connect.data", "io.debezium.time"
DEBEZIUM_TYPES = [
    Vector(_typed(value, kind, name, more), (upsert("7", {"v": becomes}),), KEY)
    for value, kind, name, more, becomes in [
        ('"MDk="', "bytes", f"{CONNECT}.Decimal", ', "parameters": {"scale": "2"}', "123.45"),
        ('"/w=="', "bytes", f"{CONNECT}.Decimal", ', "parameters": {"scale": "0"}', "-1"),
        (
            '{"scale": 3, "value": "MDk="}',
            "struct",
            "io.debezium.data.VariableScaleDecimal",
            "",
            "12.345",
        ),
        ('"/w=="', "bytes", "", "", b"\xff"),
        ("null", "bytes", "", "", None),
        ("19844", "int32", f"{DBZ}.Date", "", "2024-05-01"),
        ("1714564800500", "int64", f"{DBZ}.Timestamp", "", "2024-05-01T12:00:00.500000"),
        ("1714564800500000", "int64", f"{DBZ}.MicroTimestamp", "", "2024-05-01T12:00:00.500000"),
        ("1714564800500000000", "int64", f"{DBZ}.NanoTimestamp", "", "2024-05-01T12:00:00.500000"),
        ("1714564800000", "int64", f"{CONNECT}.Timestamp", "", "2024-05-01T12:00:00Z"),
        ("43200000", "int32", f"{CONNECT}.Time", "", "12:00:00"),
        ("43200000000", "int64", f"{DBZ}.MicroTime", "", "12:00:00"),
        ('"2024-05-01T12:00:00Z"', "string", f"{DBZ}.ZonedTimestamp", "", "2024-05-01T12:00:00Z"),
    ]
] + [
    Vector(_typed('"?"', "bytes", f"{CONNECT}.Decimal"), "is no org.apache", KEY),
    Vector(_typed("99999999", "int32", f"{DBZ}.Date"), "is no io.debezium", KEY),
    Vector(_typed("-1", "int32", f"{DBZ}.Time"), "is no io.debezium", KEY),
]
_CE = (("ce_specversion", b"1.0"), ("ce_id", b"7"), ("ce_source", b"/wood"), ("ce_type", b"t"))
_EVENT = {"specversion": "1.0", "id": "7", "source": "/wood", "type": "t"}
_STRUCTURED = (("content-type", b"application/cloudevents+json; charset=UTF-8"),)
_BODY = b'{"specversion": "1.0", "id": "7", "source": "/wood", "type": "t"'
CLOUD_EVENTS = [
    Vector(b'{"n": 1}', (upsert("/wood 7", {**_EVENT, "data": {"n": 1}}),), headers=_CE),
    Vector(
        b"Oak",
        (upsert("/wood 7", {**_EVENT, "data": "Oak", "datacontenttype": "text/plain"}),),
        headers=(*_CE, ("content-type", b"text/plain")),
    ),
    Vector(
        b"\xff",
        (upsert("/wood 7", {**_EVENT, "data": b"\xff", "datacontenttype": "image/png"}),),
        headers=(*_CE, ("Content-Type", b"image/png")),
    ),
    Vector(None, (upsert("/wood 7", _EVENT),), headers=_CE),
    Vector(
        _BODY + b', "time": "1970-01-01T00:00:01Z", "data": [1]}',
        (upsert("/wood 7", {**_EVENT, "time": "1970-01-01T00:00:01Z", "data": [1]}, 1000),),
        headers=_STRUCTURED,
    ),
    Vector(_BODY + b', "data_base64": "/w=="}', (upsert("/wood 7", {**_EVENT, "data": b"\xff"}),)),
    Vector(_BODY + b', "data_base64": "?"}', "not base64"),
    Vector(b'{"specversion": "1.0", "id": "7"}', "attribute 'source' must be text"),
    Vector(_BODY.replace(b"1.0", b"0.3") + b"}", "specversion must be '1.0'"),
    Vector(
        b"[]", "one a message", headers=(("content-type", b"application/cloudevents-batch+json"),)
    ),
    Vector(b"x", "not JSON", headers=_CE),
]
AVRO_SCHEMA = """{"type": "record", "name": "Tree", "fields": [
  {"name": "id", "type": "long"},
  {"name": "price", "type":
    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
  {"name": "note", "type": ["null", "string"], "default": null}]}"""
_AVRO_BODY = b"\x0e\x04\x30\x39" + b"\xd0\x0f" + b"\x02\x06Oak"
AVRO = [
    Vector(
        _AVRO_BODY,
        (
            upsert(
                "7", {"id": 7, "price": "123.45", "at": "1970-01-01T00:00:01Z", "note": "Oak"}, 1000
            ),
        ),
    ),
    Vector(_AVRO_BODY + b"x", "1 bytes are left over"),
    Vector(_AVRO_BODY[:-1], "not Avro"),
    Vector(b"", "not Avro"),
    Vector(b"\x0e\x04\x30\x39\xd0\x0f\x08", "not Avro"),
    Vector(None, (delete("k"),), b"k"),
]
AVRO_NAN = [Vector(struct.pack("<d", float("inf")), (upsert("t/0/0", float("inf")),))]
AVRO_RECURSIVE = '{"type": "record", "name": "L", "fields": [{"name": "n", "type": ["null", "L"]}]}'
RECURSIVE = [
    Vector(b"\x02\x00", (upsert("t/0/0", {"n": {"n": None}}),)),
    Vector(b"\x02" * 110 + b"\x00", "nested more than 100 deep"),
    Vector(b"\x02" * 500_000 + b"\x00", "not Avro of its schema: nested too deeply"),
]
PROTO_SCHEMA = """syntax = "proto3";
package wood;
import "google/protobuf/timestamp.proto";
message Tree {
  int64 id = 1;
  string name = 2;
  optional double height = 3;
  repeated Kind kinds = 4;
  map<string, uint64> counts = 5;
  google.protobuf.Timestamp at = 6;
  bytes raw = 7;
  Inner inner = 8;
  message Inner { bool ok = 1; }
  enum Kind { NONE = 0; OAK = 1; }
}
"""
_TREE = {
    "id": 0,
    "name": "",
    "height": None,
    "kinds": [],
    "counts": {},
    "at": None,
    "raw": b"",
    "inner": None,
}
PROTOBUF = [
    Vector(b"", (upsert("0", _TREE),)),
    Vector(b"\x08\x07\x12\x03Oak", (upsert("7", {**_TREE, "id": 7, "name": "Oak"}),)),
    Vector(
        b"\x08\x07\x22\x02\x01\x05\x2a\x05\x0a\x01a\x10\x02\x32\x02\x08\x01\x42\x02\x08\x01",
        (
            upsert(
                "7",
                {
                    **_TREE,
                    "id": 7,
                    "kinds": ["OAK", 5],
                    "counts": {"a": 2},
                    "at": "1970-01-01T00:00:01Z",
                    "inner": {"ok": True},
                },
                1000,
            ),
        ),
    ),
    Vector(b"\x98\x06\x01\x08\x07", (upsert("7", {**_TREE, "id": 7}),)),
    Vector(b"\x08", "not Protobuf of wood.Tree"),
    Vector(b"\x12\x01\xff", "not Protobuf of wood.Tree"),
]

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
