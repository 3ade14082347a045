"""Vector store: upsert rows, search by similarity.

``collection("docs", dim=384)`` is a value: a sink for a pipeline, and ``.open()`` where it is used.
"""

from sage_flink.db.collection import Collection, collection
from sage_flink.db.vector_store import RefusedRow, RowDelete, SearchHit, VectorRow, VectorStore

__all__ = [
    "Collection",
    "RefusedRow",
    "RowDelete",
    "SearchHit",
    "VectorRow",
    "VectorStore",
    "collection",
]
