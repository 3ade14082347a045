"""The ``filters`` of a vector-store search: OpenAI's object, or the text form of ``sage.db``.

The keys of OpenAI's object are fields of a row; of a vector store of the API they are attributes of
a file, which the text form calls ``attributes.year``.

Source: OpenAI API reference, vector stores, "ComparisonFilter" and "CompoundFilter".
"""

from collections.abc import Callable, Mapping
from typing import Any

from sage_flink.common import Rejected
from sage_flink.db import Field, RowFilter, field, parse_filter
from sage_flink.db.filters import DEPTH_MAX, All, Either
from sage_gateway.errors import InvalidRequest

FieldOf = Callable[[str], Field]
#: A text is parsed while other requests wait.
TEXT_MAX = 20_000
_COMPARISONS: Mapping[str, Callable[[Field, Any], RowFilter]] = {
    "eq": Field.__eq__,
    "ne": Field.__ne__,
    "gt": Field.__gt__,
    "gte": Field.__ge__,
    "lt": Field.__lt__,
    "lte": Field.__le__,
    "in": Field.in_,
    "nin": lambda of, values: ~of.in_(values),
}
_COMPOUNDS: Mapping[str, type[All] | type[Either]] = {"and": All, "or": Either}


def requested_filter(
    filters: Mapping[str, Any] | str | None, field_of: FieldOf
) -> RowFilter | None:
    """The filter that a request has; ``field_of`` finds the field of a key of OpenAI's object.

    Raises:
        InvalidRequest: it cannot be read; the message names the place in it.
    """
    if filters is None:
        return None
    if isinstance(filters, str) and len(filters) > TEXT_MAX:
        message = f"filter: at most {TEXT_MAX} characters, got {len(filters)}"
        raise InvalidRequest(message, code="invalid_filter", param="filters")
    try:
        if isinstance(filters, str):
            return parse_filter(filters)
        return _filter(filters, field_of, "filters", 1)
    except Rejected as error:
        raise InvalidRequest(str(error), code="invalid_filter", param="filters") from error


def attribute(key: str) -> Field:
    """The attribute ``key`` of the file of a row."""
    return field("attributes")[key]


def _filter(given: Any, field_of: FieldOf, where: str, depth: int) -> RowFilter:
    if not isinstance(given, Mapping):
        raise Rejected(f"filter: {where} must be an object with a type")
    if depth > DEPTH_MAX:
        raise Rejected(f"filter: {where}: nested more than {DEPTH_MAX} deep")
    kind = str(given.get("type"))
    if kind in _COMPOUNDS:
        parts = _only(given, "filters", where)
        if not isinstance(parts, list) or not parts:
            raise Rejected(f"filter: {where}.filters must be a list with a filter or more")
        inner = [
            _filter(part, field_of, f"{where}.filters[{n}]", depth + 1)
            for n, part in enumerate(parts)
        ]
        return _COMPOUNDS[kind](tuple(inner))
    if kind not in _COMPARISONS:
        known = ", ".join([*_COMPARISONS, *_COMPOUNDS])
        raise Rejected(f"filter: {where}.type must be one of {known}, got {kind:.100}")
    value = _only(given, "value", where, "key")
    if isinstance(value, list) != (kind in {"in", "nin"}):
        raise Rejected(f"filter: {where}.value: in and nin take a list, all others one value")
    return _COMPARISONS[kind](field_of(given["key"]), value)


def _only(given: Mapping[str, Any], name: str, where: str, *others: str) -> Any:
    """The entry ``name``; there must be no other than it, the type and ``others``."""
    wanted = {"type", name, *others}
    if missing := sorted(wanted - given.keys()):
        raise Rejected(f"filter: {where}: {missing[0]!r} is missing")
    if unknown := sorted(given.keys() - wanted):
        raise Rejected(f"filter: {where}: {unknown[0]!r} is not known here")
    return given[name]
