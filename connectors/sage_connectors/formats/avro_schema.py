"""Schemas of Avro: parsed once, with Debezium's types as logical ones, and safe to read with.

A message's bytes can make a decoder run without end or crash, so two kinds of schema are treated
apart: fastavro's compiled reader overflows the stack of its process at some 5,000 levels of a
recursive type, where its reader in Python raises RecursionError; and a block of 2^60 items that
take no bytes is a few bytes long, so arrays of such items are refused.
"""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from sage_connectors.formats.schema_registry import Schema
from sage_flink.common.errors import ConfigError

#: Debezium's and Connect's types that Avro's logical types say as well.
_CONNECT_TYPES = {
    "io.debezium.time.Date": "date",
    "io.debezium.time.Time": "time-millis",
    "io.debezium.time.MicroTime": "time-micros",
    "io.debezium.time.Timestamp": "local-timestamp-millis",
    "io.debezium.time.MicroTimestamp": "local-timestamp-micros",
}


class Parsed(NamedTuple):
    """A schema as fastavro takes it, the types that it names, and the function that reads it."""

    tree: Any
    named: dict[str, Any]
    reader: Callable[..., Any]


@functools.lru_cache(1_000)
def parse(schema: Schema) -> Parsed:
    """The schema for fastavro.

    Raises:
        ConfigError: it is not a schema of Avro, or one that is refused, or fastavro is missing.
    """
    try:
        import fastavro
        from fastavro import _read_py
    except ModuleNotFoundError as error:
        raise ConfigError("fastavro is missing: pip install 'sage-flink[kafka]'") from error
    named: dict[str, Any] = {}
    flaws = (ValueError, TypeError, KeyError, RecursionError, AttributeError)
    try:
        for reference in schema.references:
            fastavro.parse_schema(_logical(json.loads(reference.text)), named_schemas=named)
        tree = fastavro.parse_schema(_logical(json.loads(schema.text)), named_schemas=named)
    except (*flaws, fastavro.schema.SchemaParseException) as error:
        raise ConfigError(f"avro: not a schema: {type(error).__name__}: {error}") from error
    for each in (tree, *named.values()):
        _require_items_with_bytes(each, named)
    is_recursive = any(_reaches(name, named[name], named, set()) for name in named)
    reader = _read_py.schemaless_reader if is_recursive else fastavro.schemaless_reader
    return Parsed(tree, named, reader)


def _logical(schema: Any) -> Any:
    """The schema with Debezium's types as logical types of Avro, so that both read alike."""
    if isinstance(schema, list):
        return [_logical(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        name: _logical(below) if name in ("type", "fields", "items", "values") else below
        for name, below in schema.items()
    }
    known = _CONNECT_TYPES.get(str(schema.get("connect.name")))
    return {**made, "logicalType": known} if known and "logicalType" not in schema else made


def _below(schema: Any) -> Iterator[Any]:
    """The schemas within a parsed one."""
    if isinstance(schema, list):
        yield from schema
    elif isinstance(schema, dict):
        yield from (field["type"] for field in schema.get("fields", ()))
        yield from (schema[name] for name in ("items", "values") if name in schema)
        if not isinstance(schema["type"], str):
            yield schema["type"]


def _reaches(name: str, schema: Any, named: dict[str, Any], seen: set[str]) -> bool:
    """Whether a value of ``schema`` can hold one of the type ``name``."""
    for below in _below(schema):
        if below == name:
            return True
        known = isinstance(below, str) and below in named
        if known and below in seen:
            continue
        if known:
            seen.add(below)
        if _reaches(name, named[below] if known else below, named, seen):
            return True
    return False


def _require_items_with_bytes(schema: Any, named: dict[str, Any]) -> None:
    is_array = isinstance(schema, dict) and schema["type"] == "array"
    if is_array and _is_empty(schema["items"], named, frozenset()):
        raise ConfigError("avro: an array's items must take bytes, so not null or an empty one")
    for below in _below(schema):
        _require_items_with_bytes(below, named)


def _is_empty(schema: Any, named: dict[str, Any], around: frozenset[str]) -> bool:
    """Whether a value takes no bytes."""
    if isinstance(schema, str):
        known = schema in named and schema not in around
        return _is_empty(named[schema], named, around | {schema}) if known else schema == "null"
    if isinstance(schema, list):
        return False
    if schema["type"] == "record":
        return all(_is_empty(field["type"], named, around) for field in schema["fields"])
    return bool(schema["type"] == "null" or (schema["type"] == "fixed" and schema["size"] == 0))
