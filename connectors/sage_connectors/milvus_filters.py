"""A filter as an expression of Milvus, for which the same rows are found.

Milvus compares JSON as :mod:`sage_flink.db.filters` does, with these differences, which the
expression evens out. Found with server 2.3.5:

* ``!=`` is true of a value that is absent or of another type; ``<`` and ``>`` are not.
* A list of mixed types is an error, also of whole numbers with others.
* ``json_contains`` of a whole number finds no equal number with a point; the reverse does.
* ``like`` knows ``%`` at the end only, and has no way to say a plain ``%``; an order does both.
* A name with brackets ends the server (it counts them after it has read the text); one with ``/``
  is never found. Such names, and those that JSON writes with a backslash, are refused here, and so
  no name can be more than a name.

Source: Milvus documentation, "Boolean expression rules", "JSON field".
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import orjson

from sage_flink.common.errors import Rejected
from sage_flink.db.filter_values import (
    Place,
    Scalar,
    pattern_parts,
    place_text,
    plain_text,
)
from sage_flink.db.filters import (
    All,
    Comparison,
    Compound,
    Condition,
    Contains,
    Exists,
    Like,
    Not,
    OneOf,
    RowFilter,
)
from sage_flink.db.snapshots import EPOCHS, ROW
from sage_flink.db.vectors import LABELS_BYTES_MAX

NEVER, ALWAYS = "id in []", "not (id in [])"
#: The largest whole number that a number with a point holds exactly, and its neighbours too.
EXACT_MAX = 2**53
_UNFINDABLE = re.compile(r"[\[\]/\\\"~\x00-\x1f]")
_LAST, _BEFORE_SURROGATES, _AFTER_SURROGATES = "\U0010ffff", "\ud7ff", "\ue000"


def expression(where: RowFilter, columns: Collection[str]) -> str:
    """The expression; ``columns`` are the fields of the schema, such as ``doc`` and ``version``.

    Raises:
        Rejected: Milvus has no such expression; the message names the condition.
    """
    if isinstance(where, Compound):
        parts = [f"({expression(part, columns)})" for part in where.parts]
        if isinstance(where, Not):
            return f"not {parts[0]}"
        return (" and " if isinstance(where, All) else " or ").join(parts)
    assert isinstance(where, Condition)
    name = where.place[0]
    if name == "id":
        return _of_text("id", ALWAYS, where)
    if name == ROW and name in columns:
        return _of_text(ROW, ALWAYS, where)
    if name in EPOCHS and name in columns:
        return _EXPRESSIONS[type(where)](str(name), where)
    if name in LABELS_BYTES_MAX:
        column = str(name) if name in columns else _place(where.place)
        there = f'{column} > ""'  # an empty one is absent
        return f"{there} and ({_of_text(column, there, where)})"
    if name in columns:
        raise Rejected(
            f"filter: {where}: {name!r} is a column of a schema that sage did not make; "
            "filters know the columns id, doc and version, and dynamic fields"
        )
    return _EXPRESSIONS[type(where)](_place(where.place), where)


def _of_text(column: str, there: str, where: Condition) -> str:
    """A condition on a column that holds text only."""
    if isinstance(where, Exists):
        return there
    if isinstance(where, Contains):
        return NEVER
    if isinstance(where, OneOf):
        where = OneOf(where.place, tuple(v for v in where.values if isinstance(v, str)))
    elif isinstance(where, Comparison) and not isinstance(where.value, str):
        return NEVER
    return _EXPRESSIONS[type(where)](column, where)


def _comparison(at: str, where: Comparison) -> str:
    value = where.value
    if where.operator != "!=":
        return f"{at} {where.operator} {_literal(value)}"
    if isinstance(value, bool):
        return f"{at} == {_literal(not value)}"
    return f"{at} < {_literal(value)} or {at} > {_literal(value)}"


def _one_of(at: str, where: OneOf) -> str:
    groups: dict[type, list[str]] = {}
    for value in where.values:
        groups.setdefault(type(value), []).append(_literal(value))
    return " or ".join(f"{at} in [{', '.join(group)}]" for group in groups.values()) or NEVER


def _contains(at: str, where: Contains) -> str:
    value = where.value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= EXACT_MAX:
        value = float(value)
    return f"json_contains({at}, {_literal(value)})"


def _exists(at: str, where: Exists) -> str:
    return f"exists {at}"


def _like(at: str, where: Like) -> str:
    *start, end = pattern_parts(where.pattern) or [""]
    if any(part in {"%", "_"} for part in start) or end == "_":
        raise Rejected(
            f"filter: {where}: Milvus finds texts by their beginning only: 'ab%'; "
            "compare the text as a whole, or store the part that you look for as a field"
        )
    if end != "%":
        return f"{at} == {_literal(''.join(map(plain_text, [*start, end])))}"
    prefix = "".join(map(plain_text, start))
    after = _after(prefix)
    return f"{at} >= {_literal(prefix)}" + (f" and {at} < {_literal(after)}" if after else "")


_EXPRESSIONS: Mapping[type[RowFilter], Callable[[str, Any], str]] = {
    Comparison: _comparison,
    OneOf: _one_of,
    Contains: _contains,
    Exists: _exists,
    Like: _like,
}


def _after(prefix: str) -> str:
    """The first text after all that begin with ``prefix``; empty where all others are before."""
    while prefix.endswith(_LAST):
        prefix = prefix[:-1]
    if not prefix:
        return ""
    last = _AFTER_SURROGATES if prefix[-1] == _BEFORE_SURROGATES else chr(ord(prefix[-1]) + 1)
    return prefix[:-1] + last


def _place(place: Place) -> str:
    for name in place:
        if isinstance(name, str) and (not name or _UNFINDABLE.search(name)):
            raise Rejected(
                f"filter: {place_text(place)}: Milvus cannot find a name that is empty or has "
                "brackets, quotes, a slash, backslash, ~ or control character"
            )
    return "$meta" + "".join(f"[{_literal(name)}]" for name in place)


def _literal(value: Scalar) -> str:
    """A value in an expression; Milvus quotes text as JSON does."""
    if value == -(2**63) and not isinstance(value, float):
        raise Rejected(f"filter: Milvus has no number {value}; use one that is larger by 1")
    return repr(value) if isinstance(value, float) else orjson.dumps(value).decode()
