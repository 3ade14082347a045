"""Validation of the fields of a record's value where an operator reads them.

>>> from sage_flink.common.records import Record
>>> require_field(Record("a", {"doc": "intro"}), "doc", str)
'intro'
>>> require_field(Record("a", {"title": "x"}), "doc", str)
Traceback (most recent call last):
sage_flink.common.errors.Rejected: field 'doc' is missing
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record

T = TypeVar("T")
_WORDS = {
    str: "text",
    list: "a list",
    dict: "named fields",
    int: "a whole number",
    float: "a number",
}


def require_mapping(record: Record) -> Mapping[str, Any]:
    """The record's value as named fields.

    Raises:
        Rejected: the value is not a mapping.
    """
    if not isinstance(record.value, Mapping):
        raise Rejected(f"the value must be named fields, got {type(record.value).__name__}")
    return record.value


def require_field(of: Record | Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Field ``name`` of a record's value, or of a mapping within it.

    ``object`` is any kind, and a whole number counts as a ``float``.

    Raises:
        Rejected: there is no such field, or it is not of ``kind``.
    """
    fields = require_mapping(of) if isinstance(of, Record) else of
    if not isinstance(fields, Mapping):
        raise Rejected(f"must be named fields with {name!r}, got {type(fields).__name__}")
    if name not in fields:
        raise Rejected(f"field {name!r} is missing")
    got = fields[name]
    if kind is float and type(got) is int:
        got = float(got)
    if not isinstance(got, kind) or (kind is int and isinstance(got, bool)):
        word = _WORDS.get(kind, kind.__name__)
        raise Rejected(f"field {name!r} must be {word}, got {type(got).__name__}")
    return got


def require_text(of: Record | Mapping[str, Any], name: str) -> str:
    """Field ``name``, a text that is not empty.

    Raises:
        Rejected: there is no such field, it is not a text, or it is empty.
    """
    got = require_field(of, name, str)
    if not got.strip():
        raise Rejected(f"field {name!r} is empty")
    return got
