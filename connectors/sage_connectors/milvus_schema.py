"""What a Milvus collection that another program made must have, so that sage can write into it."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sage_connectors.milvus_full_text import BM25_COLUMN, COLUMNS, TEXT_COLUMN, has_bm25
from sage_flink.db.snapshots import HIDDEN
from sage_flink.db.vectors import LABELS_BYTES_MAX

METRIC = "COSINE"
#: Milvus' codes of field types, as ``pymilvus.DataType`` has them.
VARCHAR, FLOAT_VECTOR = 21, 101
OWN = {"id", "vector", *LABELS_BYTES_MAX}


def schema_flaws(
    about: Mapping[str, Any], dim: int, full_text: bool = False, snapshots: bool = False
) -> list[str]:
    """Why the collection cannot hold rows with ``dim`` numbers, or find them by their words.

    With ``snapshots`` also why it cannot hold several versions of them.
    """
    fields = {field["name"]: field for field in about["fields"]}
    own = OWN | COLUMNS if has_bm25(about) else OWN
    own = own | HIDDEN if has_epochs(about) else own
    return [
        *_key(fields.get("id")),
        *_vector(fields.get("vector"), dim),
        *(() if about.get("enable_dynamic_field") else ("it takes no dynamic fields",)),
        *(f"it requires a field {name!r}" for name in fields if _is_required(fields[name], own)),
        *(_without_bm25(about) if full_text and not has_bm25(about) else ()),
        *(("it was made without snapshots=True",) if snapshots and not has_epochs(about) else ()),
    ]


def has_epochs(about: Mapping[str, Any]) -> bool:
    """Whether a collection was made with snapshots."""
    return {field["name"] for field in about["fields"]} >= HIDDEN


def _without_bm25(about: Mapping[str, Any]) -> Iterator[str]:
    has = ", ".join(f"{field['name']} {type_name(field)}" for field in about["fields"])
    yield (
        f"it has {has}, got full_text=True, which has also {TEXT_COLUMN} VARCHAR, {BM25_COLUMN} "
        "SPARSE_FLOAT_VECTOR and a BM25 function between them"
    )


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


def _is_required(field: Mapping[str, Any], own: Collection[str]) -> bool:
    optional = field.get("nullable") or field.get("default_value") is not None
    return field["name"] not in own and not optional


def type_name(field: Mapping[str, Any]) -> str:
    """Milvus's name of a field's type, such as ``VARCHAR``."""
    return str(getattr(field["type"], "name", field["type"]))
