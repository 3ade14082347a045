"""JSON: bytes into a tree that a record can carry, and back."""

import math
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sage_connectors.formats.fields import Fields
from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.flow.formats import Decoder, Encoder

#: Deeper values are rejected: another process may have less stack left to read them with.
DEPTH_MAX = 100


@dataclass(frozen=True)
class Json:
    """Messages in JSON (RFC 8259), UTF-8, with or without a byte order mark.

    ``NaN`` and ``Infinity`` are no JSON and are rejected, in both directions; so are numbers that
    no 64 bits hold (whole ones) or that a double cannot reach (others), values nested more than
    100 deep, and half surrogates. Of a name that occurs twice in an object the last value counts.

    Written, bytes are text in base64, as in Protobuf's JSON and in Debezium's.

    >>> decode = Json(Fields(id="$.id", event_time="$.at", text="$.body")).decoder()
    >>> message = Record("t/0/7", b'{"id": 7, "at": "2024-05-01T00:00:00Z", "body": "Oak"}')
    >>> [(record.id, record.timestamp_ms, record.value) for record in decode(message)]
    [('7', 1714521600000, {'doc': '7', 'title': '7', 'text': 'Oak'})]
    """

    fields: Fields = field(default_factory=Fields)

    @property
    def emits_deletes(self) -> bool:
        """Whether ids are mapped."""
        return self.fields.emits_deletes

    @property
    def native_decoder(self) -> str:
        """Without a mapping the JVM can decode it."""
        return "" if self.fields != Fields() else "json"

    @property
    def native_encoder(self) -> str:
        """The JVM can encode it; a mapping is for decoding alone."""
        return "json"

    def decoder(self) -> Decoder:
        """Messages into records."""
        fields = self.fields

        def decode(message: Record) -> tuple[Record, ...]:
            if message.value is None:
                return (fields.tombstone(message),)
            return tuple(fields.records_of(message, parse(message.value)))

        return decode

    def encoder(self, topic: str) -> Encoder:
        """Upserts into messages."""
        return lambda record: dump(record.value)


def parse(raw: Any) -> Any:
    """The tree of a JSON text.

    Raises:
        Rejected: it is not JSON in UTF-8, or cannot be carried by a record.
    """
    try:
        tree = msgspec.json.decode(require_bytes(raw).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Rejected(f"not valid UTF-8 at byte {error.start}") from error
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise Rejected(f"not JSON: {error}") from error
    # A text with fewer brackets is not as deep, and the walk takes longer than the decoding.
    if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX:
        require_depth(tree)
    return tree


def dump(value: Any) -> bytes:
    """The value in JSON.

    Raises:
        Rejected: JSON cannot hold it: NaN, an infinity, keys that are not text.
    """
    try:
        text = msgspec.json.encode(value)
        if b"null" in text:  # msgspec writes NaN as null
            _require_finite(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Rejected(f"JSON cannot hold the value: {error}") from error
    return text


def require_bytes(raw: Any) -> bytes:
    """The value of a message, which is bytes.

    Raises:
        Rejected: it is something else.
    """
    if not isinstance(raw, bytes):
        raise Rejected(f"the message must be bytes, got {type(raw).__name__}")
    return raw


def require_depth(tree: Any) -> None:
    """Check that the tree is at most 100 deep.

    Raises:
        Rejected: it is deeper.
    """
    level, depth = [tree], 0
    while containers := [node for node in level if isinstance(node, dict | list)]:
        depth += 1
        if depth > DEPTH_MAX:
            raise Rejected(f"the value is nested more than {DEPTH_MAX} deep")
        level = [
            below
            for node in containers
            for below in (node.values() if isinstance(node, dict) else node)
        ]


def _require_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no JSON")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            _require_finite(each)
