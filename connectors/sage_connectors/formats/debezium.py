"""Debezium's change events: the rows of a table as upserts and deletes, in step with the table.

Source: Debezium documentation, "Data change events" of the connectors for PostgreSQL and MySQL.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sage_connectors.formats.avro import Avro
from sage_connectors.formats.connect_values import convert
from sage_connectors.formats.fields import Fields, text_id
from sage_connectors.formats.plain_json import parse
from sage_connectors.formats.times import timestamp_ms
from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.common.records import Record
from sage_flink.common.value_encoding import short_repr
from sage_flink.flow.formats import Decoder

Tree = Callable[[Any], Any]


@dataclass(frozen=True)
class Debezium:
    """Change events of one table, in JSON with or without their schema, or in Avro.

    ===============  ======================================================================
    ``op``           becomes
    ===============  ======================================================================
    c, r, u          an upsert of ``after`` (r: a row of a snapshot)
    d, a tombstone   a delete
    t                rejected: a truncated table has no ids, and its rows would stay
    m                no record, as schema changes, heartbeats and transaction boundaries are
    ===============  ======================================================================

    A record's id is the primary key, from the message's key: the value of its one column, or a
    JSON array of the values of several. So the source reads one table, and the rows of one key are
    in one partition, as Debezium writes them. Event time is ``source.ts_ms``, when the database
    made the change. A message without a record counts as read and not as emitted.

    ``fields`` has paths for ``text``, ``title``, ``key`` and ``event_time``: ``@`` is the row, and
    ``$`` the envelope. Without ``text`` the value is the row. A collection finds the rows of a
    delete by their field ``doc``, which ``text`` sets; a row written without ``text`` needs one
    with the record's id. ``avro`` has the schema registry.

    >>> decode = Debezium().decoder()
    >>> change = b'{"op": "c", "after": {"id": 7, "name": "Oak"}, "source": {"ts_ms": 5}}'
    >>> message = Record("shop.trees/0/1", change, key=b'{"id": 7}')
    >>> [(record.id, record.timestamp_ms, record.value) for record in decode(message)]
    [('7', 5, {'id': 7, 'name': 'Oak'})]
    >>> [record.kind for record in decode(message.replace(value=None))]
    ['delete']
    """

    fields: Fields = field(default_factory=Fields)
    avro: Avro | None = None

    def __post_init__(self) -> None:
        for name in ("id", "delete", "explode"):
            if getattr(self.fields, name):
                raise ConfigError(
                    f"debezium: fields.{name} must be left out: the id is the primary key, and the "
                    "operation says what is deleted; for flattened events use Json"
                )
        if self.avro is not None and not (self.avro.registry or self.avro.connection):
            raise ConfigError("debezium: avro needs the schema registry as registry or connection")
        if self.avro is not None and self.avro.fields != Fields():
            raise ConfigError("debezium: avro.fields must be left out; set fields of Debezium")

    @property
    def emits_deletes(self) -> bool:
        """True."""
        return True

    def decoder(self) -> Decoder:
        """Change events into records."""
        fields = self.fields
        of_key, of_value = _trees(self.avro)

        def decode(message: Record) -> tuple[Record, ...]:
            if message.value is None:
                return (_delete(message, of_key),)
            envelope = of_value(message)
            operation = _operation(envelope)
            if operation is None:
                return ()
            timed = message.replace(timestamp_ms=_time_ms(envelope, message))
            if operation == "d":
                return (_delete(timed, of_key),)
            row = envelope.get("after")
            if not isinstance(row, dict):
                raise Rejected(f"'after' must be a row where op is {operation!r}, got {row!r:.100}")
            return (fields.record_of(timed.replace(id=_id(message, of_key)), envelope, row),)

        return decode


def _trees(avro: Avro | None) -> tuple[Tree, Tree]:
    if avro is None:
        return lambda message: _payload(message.key), lambda message: _payload(message.value)
    of_key, of_value = avro.trees_of_keys(), avro.trees()
    return of_key, of_value


def _payload(raw: Any) -> Any:
    """The tree of Kafka Connect's JSON: its payload, where it has its schema."""
    tree = parse(raw)
    if isinstance(tree, dict) and tree.keys() == {"schema", "payload"}:
        return convert(tree["payload"], tree["schema"])
    return tree


def _operation(envelope: Any) -> str | None:
    """The operation; None for a message that is not about a row.

    Raises:
        Rejected: it is no message of Debezium, or one that cannot be applied.
    """
    if not isinstance(envelope, dict):
        raise Rejected(f"not a change event of Debezium: {short_repr(envelope)}")
    op = envelope.get("op")
    if op in ("c", "r", "u", "d"):
        return str(op)
    if op == "m" or (op is None and _is_about_no_row(envelope)):
        return None
    if op == "t":
        raise Rejected(
            "the table was truncated, and its rows cannot be deleted one by one; empty what this "
            "job wrote, and take a snapshot of the table again"
        )
    raise Rejected(f"not a change event of Debezium: 'op' is {short_repr(op)}")


def _is_about_no_row(envelope: dict[str, Any]) -> bool:
    is_schema_change = "ddl" in envelope or "tableChanges" in envelope
    is_transaction = envelope.get("status") in ("BEGIN", "END") and "id" in envelope
    return is_schema_change or is_transaction or envelope.keys() == {"ts_ms"}


def _time_ms(envelope: dict[str, Any], message: Record) -> int:
    source = envelope.get("source")
    changed = source.get("ts_ms") if isinstance(source, dict) else None
    found = envelope.get("ts_ms") if changed is None else changed
    return message.timestamp_ms if found is None else timestamp_ms(found, "epoch_ms")


def _id(message: Record, of_key: Tree) -> str:
    if message.key is None:
        raise Rejected("the change event has no key; the table needs a primary key")
    columns = of_key(message)
    if not isinstance(columns, dict) or not columns:
        raise Rejected(f"the key must hold the primary key's columns, got {short_repr(columns)}")
    values = [_column(name, value) for name, value in columns.items()]
    if len(values) == 1:
        return text_id(values[0], "the primary key")
    return text_id(msgspec.json.encode(values).decode(), "the primary key")


def _column(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, dict | list | float):
        raise Rejected(f"column {name!r} of the primary key is {short_repr(value)}")
    return value


def _delete(message: Record, of_key: Tree) -> Record:
    row = _id(message, of_key)
    return message.delete_of(row, id=row)
