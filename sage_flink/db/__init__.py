"""sage.db: rows of text and meaning, found again by nearness.

``collection("docs", dim=384)`` is a value: a sink for a pipeline, and ``.open()`` where it is used.
"""

from sage_flink.db.collection import Collection, collection
from sage_flink.db.port import Hit, RefusedRow, Row, VectorStore

__all__ = ["Collection", "Hit", "RefusedRow", "Row", "VectorStore", "collection"]
