"""Avro: with an inline schema, or in the wire format of a schema registry.

Source: Apache Avro specification 1.12, "Schema Resolution" and "Binary encoding".
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sage_connectors.formats.avro_schema import Parsed, parse
from sage_connectors.formats.avro_values import for_fastavro
from sage_connectors.formats.carried import record_value
from sage_connectors.formats.fields import Fields
from sage_connectors.formats.plain_json import DEPTH_MAX, require_bytes, require_depth
from sage_connectors.formats.schema_registry import (
    LATEST,
    Framed,
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


@dataclass(frozen=True)
class Avro:
    """Messages in Avro's binary encoding.

    * Without a registry, ``schema`` (JSON) is the schema of every message, which is the bare
      datum.
    * With ``registry``, the URL of Confluent's API, or ``connection``, the name of a connection of
      kind ``schema_registry``, messages have the id of their writer's schema. They are read as
      ``schema``: its JSON, ``latest`` (that of the subject when a schema is first met), or empty:
      the writer's own. Resolution is Avro's: an added field takes its default, a removed one is
      dropped, an int becomes a long or a double.

    ``subject`` is by default the topic's name with ``-value``. Written, messages have ``schema``,
    and with a registry its id; ``register=False`` only looks it up.

    Decimals, dates and times are text, see :mod:`~sage_connectors.formats.carried`. A registry that
    is away is waited for; a message with an id that it does not know is rejected.

    >>> fields = '[{"name": "id", "type": "long"}]'
    >>> avro = Avro(f'{{"type": "record", "name": "Tree", "fields": {fields}}}')
    >>> message = Record("t/0/1", avro.encoder("t")(Record("", {"id": 7})))
    >>> message.value, [record.value for record in avro.decoder()(message)]
    (b'\\x0e', [{'id': 7}])
    """

    schema: str = ""
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
        found = registry_definition("avro", self.connection, self.registry)
        object.__setattr__(self, "definition", found)
        has_registry = bool(self.registry or self.connection)
        require_schema("avro", self.schema, has_registry=has_registry)
        if self.schema and self.schema != LATEST:
            parse(Schema("AVRO", self.schema))

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
        return self.fields.decoder(self.trees())

    def encoder(self, topic: str) -> Encoder:
        """Upserts into messages; registers the schema, or looks it up."""
        require_own_schema("avro", self.schema)
        schema = parse(Schema("AVRO", self.schema))
        subject, server = self.subject or f"{topic}-value", self.server
        id_ = (
            schema_id(server, subject, self.schema, "AVRO", register=self.register)
            if server
            else None
        )

        def encode(record: Record) -> bytes:
            payload = _write(record.value, schema)
            return payload if id_ is None else frame(id_, payload)

        return encode

    def trees(self) -> Callable[[Record], Any]:
        """The function from a message to the tree of its value."""
        own = None if self.schema in ("", LATEST) else parse(Schema("AVRO", self.schema))
        server = self.server
        if server is None:
            assert own is not None
            return lambda message: _read(require_bytes(message.value), own, own)
        require_access(server)
        readers: dict[tuple[str, int], Parsed] = {}  # of a subject, when a writer is first met

        def tree(message: Record) -> Any:
            data = read_frame(message.value)
            reader = own
            if self.schema == LATEST:
                subject = self.subject or f"{topic_of(message)}-value"
                if (subject, data.schema_id) not in readers:
                    readers[subject, data.schema_id] = parse(latest(server, subject)[1])
                reader = readers[subject, data.schema_id]
            return _framed_tree(server, data, reader)

        return tree

    def trees_of_keys(self) -> Callable[[Record], Any]:
        """The function from a message to the tree of its key, in the writer's own schema."""
        server = self.server
        assert server is not None
        return lambda message: _framed_tree(server, read_frame(message.key), None)


def topic_of(message: Record) -> str:
    """The topic of a message, whose id is ``topic/partition/offset``."""
    return message.id.rsplit("/", 2)[0]


def _framed_tree(server: SchemaRegistryConnection, data: Framed, reader: Parsed | None) -> Any:
    writer = parse(schema_by_id(server, data.schema_id, "AVRO"))
    return _read(data.payload, writer, reader or writer)


def _read(payload: bytes, writer: Parsed, reader: Parsed) -> Any:
    source = io.BytesIO(payload)
    target = None if reader is writer else reader.tree
    try:
        tree = writer.reader(source, writer.tree, target)
    except RecursionError as error:  # its message depends on the stack
        raise Rejected("not Avro of its schema: nested too deeply") from error
    except Exception as error:  # fastavro raises what its readers raise: EOFError, IndexError, ...
        raise Rejected(f"not Avro of its schema: {type(error).__name__}: {error}") from error
    if left := len(payload) - source.tell():
        raise Rejected(f"not Avro of its schema: {left} bytes are left over")
    if len(payload) > DEPTH_MAX:
        require_depth(tree)
    return record_value(tree)


def _write(value: Any, schema: Parsed) -> bytes:
    import fastavro

    target = io.BytesIO()
    try:
        ready = for_fastavro(value, schema.tree, schema.named)
        fastavro.schemaless_writer(target, schema.tree, ready, strict_allow_default=True)
    except Exception as error:  # as above: ValueError, TypeError, KeyError, struct.error, ...
        raise Rejected(
            f"the value is not of the schema: {type(error).__name__}: {error}"
        ) from error
    return target.getvalue()
