"""Full-text search of a Milvus collection: a BM25 function of the server, and the column it reads.

Milvus has it since 2.5, milvus-lite since 3.0; the local stack's Milvus 2.3 has not. A query is
split into words as the texts are. Milvus counts rows that were overwritten or deleted until it
compacts them, so scores may differ for a while; the order of clear matches does not.

The text is stored twice, as a column for the function and as the dynamic field that it is in
every collection: so rows, filters and hits are the same with and without full-text search, and an
alias can move from a collection without it to one with it while readers are open.

milvus-lite 3.2 is for small collections and tests: its filters know no ``in`` and ``contains`` of
dynamic fields (Rejected), it does not order pages by id (a scan of more than one is a ConfigError),
and a search of rows that are not flushed takes 0.1 s per 1,000 rows.

Source: Milvus 2.5 documentation, "Full Text Search", "Analyzer Overview".
"""

from collections.abc import Mapping
from typing import Any

from sage_connectors.milvus_client import DataType, Function, FunctionType
from sage_flink.db.full_text import BM25_B, BM25_K1, STOP_WORDS

#: The column of the texts, and what the function makes of it.
TEXT_COLUMN, BM25_COLUMN = "full_text", "full_text_bm25"
COLUMNS = frozenset({TEXT_COLUMN, BM25_COLUMN})
BM25_INDEX: dict[str, Any] = {
    "index_type": "SPARSE_INVERTED_INDEX",
    "metric_type": "BM25",
    "params": {"bm25_k1": BM25_K1, "bm25_b": BM25_B},
}
ANALYZER = {
    "tokenizer": "standard",
    "filter": ["lowercase", {"type": "stop", "stop_words": sorted(STOP_WORDS)}],
}
TEXT_BYTES_MAX = 65_535


def add_bm25(schema: Any) -> None:
    """Add the two columns and the function to the schema of a new collection."""
    schema.add_field(
        TEXT_COLUMN,
        DataType.VARCHAR,
        max_length=TEXT_BYTES_MAX,
        enable_analyzer=True,
        analyzer_params=ANALYZER,
    )
    schema.add_field(BM25_COLUMN, DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(
        Function(
            name=BM25_COLUMN,
            function_type=FunctionType.BM25,
            input_field_names=[TEXT_COLUMN],
            output_field_names=[BM25_COLUMN],
        )
    )


def has_bm25(about: Mapping[str, Any]) -> bool:
    """Whether a collection was made with full-text search."""
    return any(
        [*function["input_field_names"]] == [TEXT_COLUMN]
        and [*function["output_field_names"]] == [BM25_COLUMN]
        for function in about.get("functions", ())
    )
