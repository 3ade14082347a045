"""A record's value as the bytes of a message, with the name of their encoding.

============  ==========================================================================
``bytes``     bytes, as they are
``null``      no value
``json``      a value that JSON holds exactly, and in not many more bytes than MessagePack
``msgpack``   any other value that can travel on the wire
``repr``      a value that cannot travel on the wire: only how it looked, in Python's words
``omitted``   a value too large for its message: only its size, and the place of its source
============  ==========================================================================

>>> [to_bytes(value) for value in (b"x", {"n": [1]}, {1: "a"})]
[(b'x', 'bytes'), (b'{"n": [1]}', 'json'), (b'\\x81\\x01\\xa1a', 'msgpack')]
"""

import json
import reprlib
from typing import Any

import msgspec

from sage_flink.common.errors import Rejected

#: Up to this size a value is written in JSON, however much smaller it is in MessagePack.
READABLE_BYTES_MAX = 1 << 20
JSON_BYTES_RATIO_MAX = 1.4
#: Above this size the smaller of the two is written: a message has a limit.
JSON_BYTES_MAX = 16 << 20


def to_bytes(value: Any) -> tuple[bytes | None, str]:
    """The bytes of ``value`` and their encoding; never raises, whatever the value."""
    if value is None:
        return None, "null"
    if isinstance(value, bytes):
        return value, "bytes"
    packed, text = _msgpack(value), _json(value)
    if text is not None and (packed is None or len(text) <= _json_bytes_max(len(packed))):
        return text, "json"
    if packed is not None:
        return packed, "msgpack"
    return short_repr(value).encode("utf-8", "backslashreplace"), "repr"


def short_repr(value: object) -> str:
    """``repr`` of the value, shortened; the name of its type where ``repr`` fails."""
    try:
        return reprlib.repr(value)
    except Exception:  # a number of more than 4,300 digits; whatever an author's class raises
        return f"<{type(value).__name__}>"


def from_bytes(data: bytes | None, encoding: str) -> Any:
    """The value that :func:`to_bytes` was given; tuples are lists, as on every wire.

    Raises:
        Rejected: the bytes are not of this encoding, or do not hold the value.
    """
    try:
        match encoding:
            case "null" | "bytes":
                return data
            case "json":
                return json.loads((data or b"").decode("utf-8", "surrogatepass"))
            case "msgpack":
                return msgspec.msgpack.decode(data or b"")
            case "omitted":
                raise Rejected(f"the value was omitted: {(data or b'').decode(errors='replace')}")
    except (ValueError, RecursionError, msgspec.DecodeError) as error:
        raise Rejected(f"the value is not {encoding}: {error}") from error
    raise Rejected(f"the value cannot be read back: {(data or b'')[:100]!r} is {encoding}")


def _json_bytes_max(packed_bytes: int) -> float:
    """How large the JSON of a value of this many bytes in MessagePack may be."""
    smaller = max(READABLE_BYTES_MAX, packed_bytes * JSON_BYTES_RATIO_MAX)
    return smaller if smaller <= JSON_BYTES_MAX else max(JSON_BYTES_MAX, packed_bytes)


def _json(value: Any) -> bytes | None:
    """The value in JSON; None where JSON would change it: other types, keys that are not text."""
    try:
        text = json.dumps(value, ensure_ascii=False)
        if json.loads(text) != value:
            return None
    except Exception:  # the author's classes are asked for their contents, and compared
        return None
    return text.encode("utf-8", "surrogatepass")  # JSON of a source may hold surrogates


def _msgpack(value: Any) -> bytes | None:
    try:
        return msgspec.msgpack.encode(value)
    except Exception:
        return None  # another type, surrogates, a number of more than 64 bits, or too deep
