"""Messages of a schema: Avro, Protobuf."""

import struct

from message_vectors import Vector, delete, upsert

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
