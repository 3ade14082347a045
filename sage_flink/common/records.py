"""The record: the element of a stream, and its wire form.

A record is nine plain fields; on the wire it is a MessagePack array in the order of the fields, so
that Java operators, Python workers and checkpoints read the same bytes without unpickling.

>>> r = Record(id="docs/0/7", value={"text": "hi"}, timestamp_ms=5, origin="docs/0/7")
>>> decode(encode(r)) == r
True
>>> derived_id("docs/0/7", "split", 0) == derived_id("docs/0/7", "split", 0)
True
"""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Literal

import msgspec

#: As in Flink's RowKind, Debezium's ``op`` and Kafka's tombstones.
Kind = Literal["upsert", "delete"]


class Record(msgspec.Struct, frozen=True, array_like=True, omit_defaults=False):
    """One element of a stream.

    ``id`` is the same after any replay: the user's own id, ``topic/partition/offset``, or
    :func:`derived_id` of its parent. ``value`` is anything MessagePack can say (dict, list, str,
    bytes, int, float, bool, None). ``timestamp_ms`` is event time, milliseconds since the epoch,
    never the wall clock of a worker. ``origin`` is the id of its source record.

    ``kind`` is what a store does with the record: store its value (upsert), or delete the rows of
    ``document`` except those of ``version`` (delete; an empty ``version`` keeps no row). Upserts
    have neither field. Whether a record is a delete never depends on its value.
    """

    id: str
    value: Any
    timestamp_ms: int = 0
    key: bytes | None = None
    headers: dict[str, bytes] = {}
    origin: str = ""
    kind: Kind = "upsert"
    document: str = ""
    version: str = ""

    def replace(self, **changes: Any) -> "Record":
        """The same record with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    def child(self, step: str, ordinal: int, value: Any) -> "Record":
        """An upsert derived from this record by ``step``; its id is stable over replays."""
        id_ = derived_id(self.id, step, ordinal)
        return Record(id_, value, self.timestamp_ms, self.key, self.headers, self.origin)

    def delete_of(self, document: str, *, version: str = "", id: str) -> "Record":  # noqa: A002
        """The delete of all rows of ``document`` except those of ``version``.

        It has this record's time, key, headers and origin. It has to travel behind the rows of
        ``version``, so that a store that applies both in order always holds one version.

        >>> Record("t/0/1", None).delete_of("intro", version="v2", id="d").kind
        'delete'
        """
        return self.replace(id=id, value=None, kind="delete", document=document, version=version)


class FailedRecord(msgspec.Struct, frozen=True, array_like=True):
    """A record that a step could not process, why, and after how many attempts.

    It becomes a message of the dead-letter topic, see :mod:`~sage_flink.common.dead_letters`.
    """

    record: Record
    step: str
    reason: str
    attempts: int = 1

    @property
    def id(self) -> str:
        """The record's id."""
        return self.record.id


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)
_MANY = msgspec.msgpack.Decoder(list[Record])


def encode(record: Record) -> bytes:
    """The record's wire form: a MessagePack array of nine."""
    return _ENCODER.encode(record)


def decode(data: bytes) -> Record:
    """The record that :func:`encode` wrote, in Python or in Java."""
    return _DECODER.decode(data)


def encode_many(records: Sequence[Record]) -> bytes:
    """A batch's wire form: a MessagePack array of records."""
    return _ENCODER.encode(records)


def decode_many(data: bytes) -> list[Record]:
    """The records of a batch, in order."""
    return _MANY.decode(data)


def derived_id(parent: str, step: str, ordinal: int) -> str:
    """The id of the ``ordinal``-th record that ``step`` makes of ``parent``: 32 hex digits.

    A pure function of its arguments, so replays in any order, rescales, re-submissions and other
    processes agree. Distinct for distinct arguments where ``step`` has no zero byte, as no step's
    name has; ``parent`` may hold anything.
    """
    return blake2b(f"{parent}\x00{step}\x00{ordinal}".encode(), digest_size=16).hexdigest()
