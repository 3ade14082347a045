"""Protobuf: with an inline schema, or in the wire format of a schema registry.

Source: Protocol Buffers documentation, "Encoding" and "ProtoJSON Format"; Confluent documentation,
"Wire format" (message indexes).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_connectors.formats.avro import topic_of
from sage_connectors.formats.fields import Fields
from sage_connectors.formats.plain_json import require_bytes
from sage_connectors.formats.proto_schema import message_at, message_named, path_of
from sage_connectors.formats.proto_values import from_message, to_message
from sage_connectors.formats.schema_registry import (
    LATEST,
    Schema,
    frame,
    latest,
    read_frame,
    registry_definition,
    registry_of,
    require_access,
    require_own_schema,
    require_schema,
    schema_by_id,
    schema_id,
)
from sage_flink.common.connections import SchemaRegistryConnection
from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.flow.formats import Decoder, Encoder

INDEXES_MAX = 32


@dataclass(frozen=True)
class Protobuf:
    """Messages in Protobuf's binary encoding (proto2 and proto3).

    ``schema`` is a ``.proto`` file's text, ``message`` the type's full name in it (by default the
    first type). ``registry``, ``connection``, ``latest``, ``subject`` and ``register`` are as those
    of ``Avro``; with a registry a message says its type itself, and is read as ``message`` of
    ``schema`` where that is given: by field numbers, so an added field takes its default and a
    removed one is dropped.

    The value has every field of the type by the name in the schema, with its default where it is
    not set, and None where it has presence (``optional``, messages, a ``oneof``). Whole numbers are
    ints, enums the names of their values (unknown ones numbers), bytes are bytes. Timestamps are
    text, durations text as in ProtoJSON, wrappers their values, and structs what they hold.
    """

    schema: str = ""
    message: str = ""
    registry: str = ""
    subject: str = ""
    register: bool = True
    fields: Fields = field(default_factory=Fields)
    connection: str = ""
    #: What the name stood for where the spec was made: a worker cannot look it up.
    definition: SchemaRegistryConnection | None = field(
        default=None, init=False, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        found = registry_definition("protobuf", self.connection, self.registry)
        object.__setattr__(self, "definition", found)
        has_registry = bool(self.registry or self.connection)
        require_schema("protobuf", self.schema, has_registry=has_registry)

    @property
    def emits_deletes(self) -> bool:
        """Whether ids are mapped."""
        return self.fields.emits_deletes

    @property
    def server(self) -> SchemaRegistryConnection | None:
        """The connection that is named, else the one to ``registry``; None without a registry."""
        return registry_of(self.definition, self.registry)

    def decoder(self) -> Decoder:
        """Messages into records."""
        server = self.server
        return self.fields.decoder(self._framed_trees(server) if server else self._bare_trees())

    def encoder(self, topic: str) -> Encoder:
        """Upserts into messages; registers the schema, or looks it up."""
        require_own_schema("protobuf", self.schema)
        schema = Schema("PROTOBUF", self.schema)
        kind = message_named(schema, self.message)
        server = self.server
        if server is None:
            return lambda record: to_message(record.value, kind).SerializeToString(
                deterministic=True
            )
        subject = self.subject or f"{topic}-value"
        id_ = schema_id(server, subject, self.schema, "PROTOBUF", register=self.register)
        indexes = _encode_indexes(path_of(schema, kind))

        def encode(record: Record) -> bytes:
            payload = to_message(record.value, kind).SerializeToString(deterministic=True)
            return frame(id_, indexes + payload)

        return encode

    def _bare_trees(self) -> Callable[[Record], Any]:
        kind = message_named(Schema("PROTOBUF", self.schema), self.message)
        return lambda message: _read(require_bytes(message.value), kind)

    def _framed_trees(self, server: SchemaRegistryConnection) -> Callable[[Record], Any]:
        require_access(server)
        own = self.schema not in ("", LATEST) and message_named(
            Schema("PROTOBUF", self.schema), self.message
        )
        readers: dict[tuple[str, int], Any] = {}  # of a subject, when a writer is first met

        def tree(message: Record) -> Any:
            data = read_frame(message.value)
            path, payload = _decode_indexes(data.payload)
            writer = message_at(schema_by_id(server, data.schema_id, "PROTOBUF"), path)
            reader = own or writer
            if self.schema == LATEST:
                subject = self.subject or f"{topic_of(message)}-value"
                if (subject, data.schema_id) not in readers:
                    readers[subject, data.schema_id] = latest(server, subject)[1]
                newest = readers[subject, data.schema_id]
                reader = message_named(newest, self.message or writer.DESCRIPTOR.full_name)
            return _read(payload, reader)

        return tree


def _read(payload: bytes, kind: Any) -> Any:
    from google.protobuf.message import DecodeError

    try:
        return from_message(kind.FromString(payload))
    except DecodeError as error:
        raise Rejected(f"not Protobuf of {kind.DESCRIPTOR.full_name}: {error}") from error


@functools.cache
def _encode_indexes(path: Sequence[int]) -> bytes:
    """The message indexes of Confluent's wire format: zigzag varints, one zero byte for ``[0]``."""
    if tuple(path) == (0,):
        return b"\x00"
    return b"".join(_varint(number * 2) for number in (len(path), *path))


def _decode_indexes(data: bytes) -> tuple[tuple[int, ...], bytes]:
    count, at = _zigzag(data, 0)
    if count == 0:
        return (0,), data[at:]
    if not 0 < count <= INDEXES_MAX:
        raise Rejected(f"not in the wire format of a schema registry: {count} message indexes")
    path = []
    for _ in range(count):
        index, at = _zigzag(data, at)
        path.append(index)
    return tuple(path), data[at:]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _zigzag(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        if at >= len(data) or shift > 35:
            raise Rejected("not in the wire format of a schema registry: no message indexes")
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return (number >> 1) ^ -(number & 1), at
