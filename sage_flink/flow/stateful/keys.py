"""Keys of records: what is one, and the function that sets it.

A key is bytes on every target and in every language, and Flink's own hash of it chooses the key
group: Python's hash of text is another one in each process.

>>> key_bytes("anna"), key_bytes(7), key_bytes(True)
(b'anna', b'7', b'true')
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.flow.stateful.fields import read_field

#: A key is a part of ids, and of the state of each window.
KEY_BYTES_MAX = 4_096


def key_bytes(value: Any) -> bytes | None:
    """The key of a value; None where the value cannot be one."""
    match value:
        case bool():
            return b"true" if value else b"false"
        case int():
            return str(value).encode()
        case str():
            return value.encode("utf-8", "surrogatepass")
        case bytes():
            return value
    return None


def with_key(record: Record, value: Any, where: str) -> Record:
    """The record with the key of ``value``, which was found at ``where``.

    Raises:
        Rejected: the value cannot be a key.
    """
    if value is None:
        raise Rejected(f"it has no key: no value at {where}")
    key = key_bytes(value)
    if key is None:
        required = "must be text, bytes, a whole number or a boolean"
        raise Rejected(f"it has no key: {where} {required}")
    if len(key) > KEY_BYTES_MAX:
        raise Rejected(_too_long(len(key)))
    return record.replace(key=key)


def key_by_field(record: Record, field: str) -> Record:
    """The record with the key that ``field`` of its value is.

    Raises:
        Rejected: the field cannot be a key.
    """
    return with_key(record, read_field(record.value, field), repr(field))


@dataclass(frozen=True, slots=True)
class KeyOf:
    """The record with the key that ``function`` returns: text, bytes, a whole number or a boolean.

    >>> [r.key for r in KeyOf(lambda record: record.value["user"])(Record("a", {"user": "anna"}))]
    [b'anna']
    """

    function: Callable[[Record], Any]

    def __call__(self, record: Record) -> Iterable[Record]:
        """The one record."""
        return (with_key(record, self.function(record), "what the function returned"),)


def key_flaw(record: Record, *, takes_deletes: bool = False) -> str:
    """Why the record cannot be in a keyed step; empty where it can."""
    if record.kind == "delete" and not takes_deletes:
        return "is a delete: keyed steps take upserts only"
    if record.key is None:
        return "has no key: put .key_by(name, field) before this step"
    return _too_long(len(record.key)) if len(record.key) > KEY_BYTES_MAX else ""


def _too_long(size: int) -> str:
    return f"its key has {size} bytes, at most {KEY_BYTES_MAX} are a key"
