"""A value as text that a person can read and :func:`read` turns back into the very value.

Bytes stand as they are where they are UTF-8 (``text``), else in ``base64``. Everything else is
``json``, in which an object with a single one of these keys stands for what JSON cannot say:

===========  ===========================================================================
``base64``   bytes
``utf8``     text with surrogates, or that JSON's escapes would blow up (base64 of UTF-8)
``map``      a mapping by its pairs: keys that are no plain text, or look like one of these
``msgpack``  a value or a part of one in MessagePack (base64): other types, large values
``repr``     a value that no wire can carry; for the eye alone, it cannot be read back
===========  ===========================================================================

>>> write({"vector": b"\\xff\\x01", "n": 1})
('{"vector": {"base64": "/wE="}, "n": 1}', 'json')
>>> read(*write({1: "a"}))
{1: 'a'}
"""

import base64
import json
import math
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from sage_flink.common.errors import Rejected

Encoding = Literal["text", "json", "base64"]
Blob = str | dict[str, str]
#: Up to this size readable goes before small.
READABLE_BYTES_MAX = 1 << 20
_SHORT = [chr(sign) for sign in b'\b\t\n\f\r"\\']  # two bytes in JSON, other control signs six
_LONG = [chr(sign) for sign in range(32) if chr(sign) not in _SHORT]


def write(value: Any) -> tuple[str, Encoding]:
    """The text of ``value`` and how it is encoded; never raises, whatever the value."""
    if isinstance(value, bytes):
        text = _text(value)
        return (_packed(value), "base64") if text is None else (text, "text")
    try:
        said = json.dumps(_tagged(value), ensure_ascii=False, allow_nan=False)
    except RecursionError:
        return json.dumps(_other(value)), "json"
    if len(said) > READABLE_BYTES_MAX and "msgpack" in (other := _other(value)):
        said = min(said, json.dumps(other), key=_size)
    return said, "json"


def read(payload: str, encoding: Encoding, *, tags: frozenset[str] | None = None) -> Any:
    """The value that :func:`write` was given; tuples are lists, as on every wire.

    ``tags`` says which keys count, all by default: letters before version 1 knew ``base64`` alone.

    Raises:
        Rejected: the text is of no such value, or says only how the value looked.
    """
    try:
        match encoding:
            case "text":
                return payload.encode()
            case "base64":
                return base64.b64decode(payload, validate=True)
            case "json":
                return _untagged(json.loads(payload), tags or frozenset(_READERS))
    except (ValueError, TypeError, RecursionError, msgspec.DecodeError) as error:
        raise Rejected(f"the payload is no {encoding} of a value: {error}") from error


def blob(data: bytes) -> Blob:
    """Bytes as text, or under the key ``base64`` where they are none."""
    text = _text(data)
    return {"base64": _packed(data)} if text is None else text


def unblob(said: str | Mapping[str, str]) -> bytes:
    """The bytes that :func:`blob` was given."""
    return said.encode() if isinstance(said, str) else base64.b64decode(said["base64"])


def clean(text: str) -> str:
    """The text, with surrogates, which no wire can carry, spelled as ``\\udc80``."""
    return text.encode("utf-8", "backslashreplace").decode()


def _tagged(value: Any) -> Any:
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else _other(value)
        case str():
            return value if _plain(value) else {"utf8": _packed(_utf8(value))}
        case bytes():
            return {"base64": _packed(value)}
        case list() | tuple():
            return [_tagged(item) for item in value]
        case Mapping():
            named = all(isinstance(key, str) and _plain(key) for key in value)
            if named and not (len(value) == 1 and value.keys() & _READERS.keys()):
                return {key: _tagged(item) for key, item in value.items()}
            return {"map": [[_tagged(key), _tagged(item)] for key, item in value.items()]}
        case _:
            return _other(value)


def _untagged(said: Any, tags: frozenset[str]) -> Any:
    if isinstance(said, list):
        return [_untagged(item, tags) for item in said]
    if not isinstance(said, dict):
        return said
    if len(said) == 1 and (tag := next(iter(said))) in tags:
        return _READERS[tag](said[tag])
    return {key: _untagged(item, tags) for key, item in said.items()}


def _other(value: Any) -> dict[str, str]:
    try:
        return {"msgpack": _packed(msgspec.msgpack.encode(value))}
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        # A foreign type, surrogates, a number of more than 64 bits, too deep.
        return {"repr": clean(reprlib.repr(value))}


def _lost(said: str) -> Any:
    raise ValueError(f"only how it looked is known: {said:.100}")


def _pairs(said: Any) -> dict[Any, Any]:
    every = frozenset(_READERS)
    return {_key(_untagged(key, every)): _untagged(item, every) for key, item in said}


def _key(key: Any) -> Any:
    return tuple(map(_key, key)) if isinstance(key, list) else key


_READERS: dict[str, Callable[[Any], Any]] = {
    "base64": lambda said: base64.b64decode(said, validate=True),
    "utf8": lambda said: base64.b64decode(said, validate=True).decode("utf-8", "surrogatepass"),
    "map": _pairs,
    "msgpack": lambda said: msgspec.msgpack.decode(base64.b64decode(said, validate=True)),
    "repr": _lost,
}


def _packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _text(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return text if _plain(text) else None


def _plain(text: str) -> bool:
    """Whether JSON can hold the text, and twice escaped does not blow it up."""
    if len(text) <= READABLE_BYTES_MAX and text.isprintable():
        return True
    long = sum(map(text.count, _LONG))
    if long > len(text) // 16:
        return False
    if len(text) > READABLE_BYTES_MAX and 6 * long + _escapes(text) > len(text) // 3:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:  # surrogates
        return False
    return True


def _size(said: str) -> int:
    return len(said) + _escapes(said) // 2


def _escapes(text: str) -> int:
    return 2 * sum(map(text.count, _SHORT))
