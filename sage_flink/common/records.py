"""The record: what travels between steps, and its one wire form.

A record is six plain fields; on the wire it is a MessagePack array in the order of the fields, so
that Java operators, Python workers and checkpoints read the same bytes and nothing is unpickled.

>>> r = Record(id="docs/0/7", value={"text": "hi"}, timestamp_ms=5, origin="docs/0/7")
>>> decode(encode(r)) == r
True
>>> derived_id("docs/0/7", "split", 0) == derived_id("docs/0/7", "split", 0)
True
"""

import base64
import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec


class Record(msgspec.Struct, frozen=True, array_like=True, omit_defaults=False):
    """One element of a stream.

    ``id`` is the same after any replay: the user's own id, ``topic/partition/offset``, or
    :func:`derived_id` of its parent. ``value`` is anything MessagePack can say (dict, list, str,
    bytes, int, float, bool, None). ``timestamp_ms`` is event time, milliseconds since the epoch,
    never the wall clock of a worker. ``origin`` names the source record it came from.
    """

    id: str
    value: Any
    timestamp_ms: int = 0
    key: bytes | None = None
    headers: dict[str, bytes] = {}
    origin: str = ""

    def replace(self, **changes: Any) -> "Record":
        """The same record with some fields changed."""
        return msgspec.structs.replace(self, **changes)

    def child(self, step: str, ordinal: int, value: Any) -> "Record":
        """A record derived from this one by ``step``; its id is stable over replays."""
        return self.replace(id=derived_id(self.id, step, ordinal), value=value)


class Failed(msgspec.Struct, frozen=True):
    """A record that a step could not process, as it stands in the dead-letter topic.

    ``payload`` is the record's value: text as it came where it is valid UTF-8 and JSON's
    escapes do not blow it up, else base64 (``payload_encoding`` says which: ``text``, ``json``,
    ``base64``).
    """

    id: str
    step: str
    reason: str
    attempts: int
    payload: str
    payload_encoding: str
    origin: str = ""
    timestamp_ms: int = 0

    def to_json(self) -> bytes:
        """The envelope as one JSON object, UTF-8."""
        return msgspec.json.encode(self)

    @classmethod
    def of(cls, record: Record, step: str, reason: str, attempts: int = 1) -> "Failed":
        """The envelope for ``record`` refused at ``step`` after ``attempts`` tries."""
        payload, encoding = _payload(record.value)
        return cls(
            id=record.id,
            step=step,
            reason=reason,
            attempts=attempts,
            payload=payload,
            payload_encoding=encoding,
            origin=record.origin or record.id,
            timestamp_ms=record.timestamp_ms,
        )


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Record)
_MANY = msgspec.msgpack.Decoder(list[Record])


def encode(record: Record) -> bytes:
    """The record's wire form: a MessagePack array of six."""
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


def _payload(value: Any) -> tuple[str, str]:
    if isinstance(value, Mapping | list | tuple | int | float | bool | None):
        return json.dumps(value, default=_readable, ensure_ascii=False), "json"
    data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = None
    # JSON writes a control character as six bytes: keep the envelope below 4/3 of the payload.
    if text is None or sum(map(data.count, range(32))) > len(data) // 16:
        return base64.b64encode(data).decode(), "base64"
    return text, "text"


def _readable(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return str(value)
