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
from typing import Any, Literal, NamedTuple

import msgspec

from sage_flink.common.errors import Rejected
from sage_flink.common.value_encoding import short_repr

#: A file of 64 MiB, the largest that a source reads, with its names. Each task that a record
#: passes has several copies of it in the memory of one JVM.
RECORD_BYTES_MAX = 65 << 20
#: As in Flink's RowKind, Debezium's ``op`` and Kafka's tombstones.
Kind = Literal["upsert", "delete"]


class Record(msgspec.Struct, frozen=True, array_like=True, omit_defaults=False):
    """One element of a stream.

    ``id`` is the same after any replay: the user's own id, ``topic/partition/offset``, or
    :func:`derived_id` of its parent. ``value`` is anything MessagePack can say (dict, list, str,
    bytes, int, float, bool, None). ``timestamp_ms`` is event time, milliseconds since the epoch in
    signed 64 bits, never the wall clock of a worker. ``origin`` is the id of its source record.

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


class Refusal(NamedTuple):
    """A record that a store or a step's function refused for good, and why.

    A function of a flat_map yields one among its records for a part of its input that it cannot
    process: the part becomes a dead letter of the step, under its own id, and the rest continues.
    """

    record: Record
    reason: str


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)
_MANY = msgspec.msgpack.Decoder(list[Record])


def encode(record: Record) -> bytes:
    """The record's wire form: a MessagePack array of nine."""
    return _ENCODER.encode(record)


def encode_valid(record: Record) -> bytes:
    """The wire form of a record that an author's code made, with its fields checked.

    :func:`encode` checks no types, so its bytes may be ones that no process can decode.

    Raises:
        Rejected: a field cannot be sent to another process; the message names it.
    """
    if flaw := _flaw(record):
        raise Rejected(flaw)
    try:
        encoded = _ENCODER.encode(record)
    except Exception as error:  # the author's classes are asked for their fields
        raise Rejected(f"the record cannot be encoded: {type(error).__name__}: {error}") from error
    if len(encoded) > RECORD_BYTES_MAX:
        raise Rejected(
            f"the record has {len(encoded)} bytes, at most {RECORD_BYTES_MAX} can be sent on; "
            "keep a large content in a store, and its address in the record"
        )
    return encoded


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


def is_timestamp_ms(number: object) -> bool:
    """Whether it is a whole number of signed 64 bits: Java's reader fails at any other."""
    return type(number) is int and -(2**63) <= number < 2**63


def _flaw(record: Record) -> str:
    """Why a field other than the value has no wire form; empty where all have one."""
    if not is_timestamp_ms(record.timestamp_ms):
        return _must_be("timestamp_ms", "a whole number of 64 bits", record.timestamp_ms)
    if record.key is not None and type(record.key) is not bytes:
        return _must_be("key", "bytes or None", record.key)
    if record.kind not in ("upsert", "delete"):
        return _must_be("kind", "'upsert' or 'delete'", record.kind)
    # Without a loop, which takes twice the time: every output of every step is checked.
    if not type(record.id) is type(record.origin) is type(record.document) is type(record.version):
        return "the record's id, origin, document and version must be text"
    if type(record.id) is not str:
        return _must_be("id", "text", record.id)
    if type(record.headers) is not dict:
        return _must_be("headers", "a dict of bytes by name", record.headers)
    for name, content in record.headers.items():
        if type(name) is not str or type(content) is not bytes:
            return _must_be("headers", "a dict of bytes by name", {name: content})
    return ""


def _must_be(field: str, required: str, got: object) -> str:
    return f"the record's {field} must be {required}, got {short_repr(got)}"
