"""Values of records as fastavro writes them: texts of logical types, and whole numbers in range.

The reverse of :mod:`~sage_connectors.formats.carried`, by the schema. fastavro checks the rest.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

_TYPES: dict[str, Any] = {
    "null": type(None),
    "boolean": bool,
    "int": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "string": str,
    "bytes": bytes,
    "fixed": bytes,
    "array": list,
    "map": Mapping,
}
_BITS = {"int": 31, "long": 63}


def for_fastavro(value: Any, schema: Any, named: Mapping[str, Any]) -> Any:
    """The value with every text of a logical type as the type that fastavro writes.

    Raises:
        ValueError: a text is not of its type, or a whole number is out of range.
    """
    if isinstance(schema, list):
        return _of_union(value, schema, named)
    if isinstance(schema, str):
        return for_fastavro(value, named[schema], named) if schema in named else _of(schema, value)
    kind, logical = schema["type"], schema.get("logicalType")
    if isinstance(value, str) and (convert := _FROM_TEXT.get(logical)):
        return convert(value)
    if kind == "record" and isinstance(value, Mapping):
        below = {field["name"]: field["type"] for field in schema["fields"]}
        return {
            name: for_fastavro(each, below[name], named) if name in below else each
            for name, each in value.items()
        }
    if kind == "array" and isinstance(value, list):
        return [for_fastavro(each, schema["items"], named) for each in value]
    if kind == "map" and isinstance(value, Mapping):
        return {name: for_fastavro(each, schema["values"], named) for name, each in value.items()}
    return _of(kind, value) if isinstance(kind, str) else for_fastavro(value, kind, named)


def _of(kind: str, value: Any) -> Any:
    if (
        kind in _BITS
        and isinstance(value, int)
        and not -(2 ** _BITS[kind]) <= value < 2 ** _BITS[kind]
    ):
        raise ValueError(f"{value} is outside of {kind}")
    return value


def _of_union(value: Any, branches: list[Any], named: Mapping[str, Any]) -> Any:
    """The value as the first branch that takes it does."""
    for branch in branches:
        if _takes(branch, value, named):
            try:
                return for_fastavro(value, branch, named)
            except (ValueError, ArithmeticError):
                continue  # a text that is no date may be a string
    raise ValueError(f"{value!r:.100} is of no branch of the union")


def _takes(branch: Any, value: Any, named: Mapping[str, Any]) -> bool:
    schema = named.get(branch, {"type": branch}) if isinstance(branch, str) else branch
    kind = schema["type"]
    if isinstance(value, str) and schema.get("logicalType") in _FROM_TEXT:
        return True
    if kind == "enum":
        return value in schema["symbols"]
    if kind == "record":
        names = {field["name"] for field in schema["fields"]}
        needed = {field["name"] for field in schema["fields"] if "default" not in field}
        return isinstance(value, Mapping) and needed <= value.keys() <= names
    if isinstance(value, bool):
        return bool(kind == "boolean")
    return isinstance(value, _TYPES.get(kind, object))


def _moment(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _local(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo:
        raise ValueError(f"{text!r} has a zone, and the schema's time has none")
    return at


_FROM_TEXT: dict[Any, Callable[[str], Any]] = {
    "decimal": Decimal,
    "date": date.fromisoformat,
    "time-millis": time.fromisoformat,
    "time-micros": time.fromisoformat,
    "timestamp-millis": _moment,
    "timestamp-micros": _moment,
    "local-timestamp-millis": _local,
    "local-timestamp-micros": _local,
    "uuid": UUID,
}
