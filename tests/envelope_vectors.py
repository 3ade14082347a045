"""Messages whose value is in an envelope: Debezium's change events, CloudEvents."""

from message_vectors import Vector, delete, upsert


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
