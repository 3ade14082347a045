"""An open collection for the vector-store interfaces of other libraries."""

import threading
from collections.abc import Collection as Ids
from collections.abc import Sequence

from sage_flink.common.errors import Rejected
from sage_flink.db import Collection, RefusedRow, RowFilter, SearchHit, VectorRow, field
from sage_flink.db.fusion import Fusion

BATCH_ROWS, IDS_MAX = 500, 5_000


class SharedCollection:
    """The rows of ``collection``, made when absent; several threads may use it.

    What was written or deleted is so for every search when the call returns.

    Raises:
        ConfigError: the collection there has another dim, schema or metric.
        StoreUnavailable: the server does not answer; each method too.
    """

    def __init__(self, collection: Collection) -> None:
        self._store = collection.open()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connection."""
        self._store.close()

    def add(self, rows: Sequence[VectorRow], what: str) -> None:
        """Upsert the rows; ``what`` they are is the subject of an error.

        Raises:
            Rejected: the store refuses some; the others are stored.
        """
        refused: list[RefusedRow] = []
        with self._lock:
            for at in range(0, len(rows), BATCH_ROWS):
                refused += self._store.upsert(rows[at : at + BATCH_ROWS])
            self._wait()
        if refused:
            reasons = "; ".join(f"{row.id}: {row.reason}" for row in refused[:3])
            raise Rejected(f"{len(refused)} {what} are refused: {reasons}")

    def delete_ids(self, ids: Sequence[str]) -> None:
        """Delete the rows of the ids; absent ones are skipped."""
        parts = [ids[at : at + IDS_MAX] for at in range(0, len(ids), IDS_MAX)]
        self._delete([field("id").in_(part) for part in parts])

    def delete_where(self, where: RowFilter) -> None:
        """Delete the rows for which the filter is true."""
        self._delete([where])

    def clear(self) -> None:
        """Delete all rows."""
        self._delete([field("id").exists()])

    def get(self, ids: Ids[str]) -> list[VectorRow]:
        """The rows of the ids, with vectors, in their order; absent ones are left out."""
        with self._lock:
            return self._store.get(ids)

    def scan(self, where: RowFilter | None) -> list[VectorRow]:
        """The rows for which the filter is true, without vectors, ordered by id."""
        with self._lock:
            return list(self._store.scan(where, vectors=False))

    def search(self, vector: Sequence[float], k: int, where: RowFilter | None) -> list[SearchHit]:
        """The nearest rows for which the filter is true, nearest first."""
        with self._lock:
            return self._store.search(vector, k, where=where)

    def search_text(self, text: str, k: int, where: RowFilter | None) -> list[SearchHit]:
        """The best rows by their words for which the filter is true, best first.

        Raises:
            ConfigError: the collection has no full-text search; the message says what to do.
        """
        with self._lock:
            return self._store.search_text(text, k, where=where)

    def hybrid_search(
        self, vector: Sequence[float], text: str, k: int, where: RowFilter | None, fusion: Fusion
    ) -> list[SearchHit]:
        """The best rows by vector and words; raises as :meth:`search_text`."""
        with self._lock:
            return self._store.hybrid_search(vector, text, k, where=where, fusion=fusion)

    def _delete(self, wheres: Sequence[RowFilter]) -> None:
        with self._lock:
            for where in wheres:
                self._store.delete_where(where)
            self._wait()

    def _wait(self) -> None:
        """Until a search finds what was written: counting waits for it."""
        self._store.count([""])
