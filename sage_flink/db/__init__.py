"""Vector store: upsert rows, search by similarity.

``collection("docs", dim=384)`` is a value: a sink for a pipeline, and ``.open()`` where it is used.
``field("year") >= 2024`` is a filter for its reads, and so is ``parse_filter("year >= 2024")``.
``collection("docs", dim=384, full_text=True)`` also finds rows by their words, and by both at once.
``collection("docs", dim=384, snapshots=True)`` shows completed checkpoints only, and its past.
"""

from sage_flink.db.collection import Collection, collection
from sage_flink.db.fields import Field, field
from sage_flink.db.filter_text import parse_filter
from sage_flink.db.filters import RowFilter
from sage_flink.db.fusion import Rrf, Weighted
from sage_flink.db.vector_store import RefusedRow, RowDelete, SearchHit, VectorRow, VectorStore

__all__ = [
    "Collection",
    "Field",
    "RefusedRow",
    "RowDelete",
    "RowFilter",
    "Rrf",
    "SearchHit",
    "VectorRow",
    "VectorStore",
    "Weighted",
    "collection",
    "field",
    "parse_filter",
]
