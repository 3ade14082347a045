"""What a Milvus collection that another program made must have, so that sage can write into it."""

from collections.abc import Iterator, Mapping
from typing import Any

from sage_flink.db.vectors import LABELS_BYTES_MAX

METRIC = "COSINE"
#: Milvus' codes of field types, as ``pymilvus.DataType`` has them.
VARCHAR, FLOAT_VECTOR = 21, 101
OWN = {"id", "vector", *LABELS_BYTES_MAX}


def schema_flaws(about: Mapping[str, Any], dim: int) -> list[str]:
    """Why rows with ``dim`` numbers cannot be stored in the collection; empty if they can."""
    fields = {field["name"]: field for field in about["fields"]}
    return [
        *_key(fields.get("id")),
        *_vector(fields.get("vector"), dim),
        *(() if about.get("enable_dynamic_field") else ("it takes no dynamic fields",)),
        *(f"it requires a field {name!r}" for name in fields if _is_required(fields[name])),
    ]


def _key(field: Mapping[str, Any] | None) -> Iterator[str]:
    if field is None or not field.get("is_primary"):
        yield "its key is not a field 'id'"
    elif int(field["type"]) != VARCHAR:
        yield f"its key 'id' is not VARCHAR but {type_name(field)}"
    elif field.get("auto_id"):
        yield "it makes the keys itself"


def _vector(field: Mapping[str, Any] | None, dim: int) -> Iterator[str]:
    if field is None:
        yield "it has no field 'vector'"
    elif int(field["type"]) != FLOAT_VECTOR:
        yield f"its field 'vector' is not FLOAT_VECTOR but {type_name(field)}"
    elif (has := int(field["params"].get("dim") or 0)) != dim:
        yield f"it has dim {has}, got dim {dim}"


def _is_required(field: Mapping[str, Any]) -> bool:
    optional = field.get("nullable") or field.get("default_value") is not None
    return field["name"] not in OWN and not optional


def type_name(field: Mapping[str, Any]) -> str:
    """Milvus's name of a field's type, such as ``VARCHAR``."""
    return str(getattr(field["type"], "name", field["type"]))
