"""Avro: with an inline schema, or in the wire format of a schema registry.

Source: Apache Avro specification 1.12, "Schema Resolution" and "Binary encoding".
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sage_connectors.formats.avro_schema import Parsed, parsed
from sage_connectors.formats.avro_values import for_fastavro
from sage_connectors.formats.carried import carried
from sage_connectors.formats.fields import Fields
from sage_connectors.formats.plain_json import DEPTH_MAX, require_bytes, require_depth
from sage_connectors.formats.schema_registry import (
    LATEST,
    Framed,
    Schema,
    frame,
    framed,
    latest,
    registered,
    require_url,
    schema_by_id,
)
from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.common.records import Record
from sage_flink.flow.formats import Decoder, Encoder


@dataclass(frozen=True)
class Avro:
    """Messages in Avro's binary encoding.

    * Without ``registry``, ``schema`` (JSON) is the schema of every message, which is the bare
      datum.
    * With ``registry``, the URL of Confluent's API, messages have the id of their writer's schema.
      They are read as ``schema``: its JSON, ``latest`` (that of the subject when a schema is first
      met), or empty for the writer's own. Resolution is Avro's: an added field takes its default,
      a removed one is dropped, an int becomes a long or a double.

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

    def __post_init__(self) -> None:
        if self.registry:
            require_url("avro", self.registry)
        elif not self.schema or self.schema == LATEST:
            raise ConfigError("avro: needs schema, or the URL of a schema registry as registry")
        if self.schema and self.schema != LATEST:
            parsed(Schema("AVRO", self.schema))

    @property
    def emits_deletes(self) -> bool:
        """Whether ids are mapped."""
        return self.fields.emits_deletes

    def decoder(self) -> Decoder:
        """Messages into records."""
        return self.fields.decoder(self.trees())

    def encoder(self, topic: str) -> Encoder:
        """Upserts into messages; registers the schema, or looks it up."""
        if not self.schema or self.schema == LATEST:
            raise ConfigError("avro: needs its own schema to be written")
        schema = parsed(Schema("AVRO", self.schema))
        subject = self.subject or f"{topic}-value"
        id_ = (
            registered(self.registry, subject, self.schema, "AVRO", register=self.register)
            if self.registry
            else None
        )

        def encode(record: Record) -> bytes:
            payload = _written(record.value, schema)
            return payload if id_ is None else frame(id_, payload)

        return encode

    def trees(self) -> Callable[[Record], Any]:
        """The function from a message to the tree of its value."""
        own = None if self.schema in ("", LATEST) else parsed(Schema("AVRO", self.schema))
        if not self.registry:
            assert own is not None
            return lambda message: _read(require_bytes(message.value), own, own)
        readers: dict[tuple[str, int], Parsed] = {}  # of a subject, when a writer is first met

        def tree(message: Record) -> Any:
            data = framed(message.value)
            reader = own
            if self.schema == LATEST:
                subject = self.subject or f"{topic_of(message)}-value"
                if (subject, data.schema_id) not in readers:
                    readers[subject, data.schema_id] = parsed(latest(self.registry, subject)[1])
                reader = readers[subject, data.schema_id]
            return self._tree(data, reader)

        return tree

    def trees_of_keys(self) -> Callable[[Record], Any]:
        """The function from a message to the tree of its key, in the writer's own schema."""
        return lambda message: self._tree(framed(message.key), None)

    def _tree(self, data: Framed, reader: Parsed | None) -> Any:
        writer = parsed(schema_by_id(self.registry, data.schema_id, "AVRO"))
        return _read(data.payload, writer, reader or writer)


def topic_of(message: Record) -> str:
    """The topic of a message, whose id is ``topic/partition/offset``."""
    return message.id.rsplit("/", 2)[0]


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
    return carried(tree)


def _written(value: Any, schema: Parsed) -> bytes:
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
