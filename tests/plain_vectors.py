"""Messages without a schema or an envelope: JSON, CSV, text, raw bytes."""

from typing import Any

from message_vectors import Vector, delete, doc, upsert


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
