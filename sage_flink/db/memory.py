"""The reference vector store: exact cosine search and BM25 over a dict, no server.

All stores of one name in this process share their rows, so that a pipeline's writer and a test's
search see the same rows; they are lost when the process ends. A search
costs about 10 ms per 1,000 rows of 384 numbers.
"""

import heapq
import math
import operator
import threading
from collections import Counter
from collections.abc import Collection as Collection_
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sage_flink.common.errors import ConfigError, NotFound
from sage_flink.db.collection import Collection
from sage_flink.db.filters import RowFilter
from sage_flink.db.full_text import bm25_scores, query_text, text_of, word_counts
from sage_flink.db.fusion import RRF, Fusion, candidates, fuse
from sage_flink.db.hit_pages import Ranked, hits_page
from sage_flink.db.json_fields import json_flaw
from sage_flink.db.vector_store import RefusedRow, RowDelete, SearchHit, VectorRow
from sage_flink.db.vectors import flaw, labels_flaw, numbers, query_vector


@dataclass(frozen=True, slots=True)
class _StoredRow:
    vector: bytes
    unit: tuple[float, ...]
    fields: dict[str, Any]
    words: Counter[str]

    def matches(self, id_: str, where: RowFilter | None) -> bool:
        return where is None or where.matches(self.fields | {"id": id_})


@dataclass(slots=True)
class _VectorTable:
    dim: int
    full_text: bool
    snapshots: bool
    rows: dict[str, _StoredRow] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_TABLES: dict[str, _VectorTable] = {}


class MemoryVectorStore:
    """The rows of one collection in this process; a search finds a row as soon as it is written."""

    def __init__(self, spec: Collection, create: bool = True) -> None:
        if not create and spec.name not in _TABLES:
            raise NotFound(f"no collection {spec.name!r} in this process")
        self.name = spec.name
        new = _VectorTable(spec.dim, spec.full_text, spec.snapshots)
        self.table = _TABLES.setdefault(spec.name, new)
        if self.table.dim != spec.dim:
            raise ConfigError(
                f"collection {spec.name!r}: it has dim {self.table.dim}, got dim {spec.dim}; "
                "use another name"
            )
        if spec.full_text:
            self._require_full_text()
        if spec.snapshots and not self.snapshots:
            raise ConfigError(
                f"collection {spec.name!r}: it was made without snapshots=True; use another name"
            )

    @property
    def snapshots(self) -> bool:
        """Whether the rows are those of several snapshots."""
        return self.table.snapshots

    def upsert(self, rows: Sequence[VectorRow]) -> Sequence[RefusedRow]:
        """Keep the rows, the newest per id."""
        refused = []
        with self.table.lock:
            for row in rows:
                reason = flaw(row.vector, dim=self.table.dim) or labels_flaw(row.fields)
                if reason := reason or json_flaw(row.fields):
                    refused.append(RefusedRow(row.id, reason))
                else:
                    unit, fields = _unit(numbers(row.vector)), dict(row.fields)
                    words = word_counts(text_of(fields)) if self.table.full_text else Counter()
                    self.table.rows[row.id] = _StoredRow(row.vector, unit, fields, words)
        return refused

    def _require_full_text(self) -> None:
        if not self.table.full_text:
            raise ConfigError(
                f"collection {self.name!r}: it was made without full_text=True; use another name"
            )

    def delete(self, deletes: Sequence[RowDelete]) -> None:
        """Delete the documents' rows except those of the versions kept."""
        with self.table.lock:
            for document, version in deletes:
                rows = self.table.rows.items()
                stale = [id_ for id_, row in rows if _is_stale(row.fields, document, version)]
                for id_ in stale:
                    del self.table.rows[id_]

    def delete_where(self, where: RowFilter) -> int:
        """Delete the rows that match."""
        with self.table.lock:
            found = [id_ for id_, row in self.table.rows.items() if row.matches(id_, where)]
            for id_ in found:
                del self.table.rows[id_]
        return len(found)

    def search(
        self,
        vector: Sequence[float],
        top_k: int,
        *,
        where: RowFilter | None = None,
        min_score: float | None = None,
        offset: int = 0,
        group_by: str = "",
    ) -> list[SearchHit]:
        """The exact nearest rows."""
        query = _unit(numbers(query_vector(vector, top_k, dim=self.table.dim)))
        hits = (
            SearchHit(id_, _dot(query, row.unit), dict(row.fields))
            for id_, row in self._rows()
            if row.matches(id_, where)
        )
        least = -math.inf if min_score is None else min_score
        near = [hit for hit in hits if hit.score >= least]
        return hits_page(_best(near), top_k, offset=offset, group_by=group_by)

    def search_batch(
        self, vectors: Sequence[Sequence[float]], top_k: int, *, where: RowFilter | None = None
    ) -> list[list[SearchHit]]:
        """The hits of each vector."""
        return [self.search(vector, top_k, where=where) for vector in vectors]

    def search_text(
        self,
        text: str,
        top_k: int,
        *,
        where: RowFilter | None = None,
        min_score: float | None = None,
        offset: int = 0,
        group_by: str = "",
    ) -> list[SearchHit]:
        """The best rows by BM25, whose statistics are those of all rows."""
        query = word_counts(query_text(text, top_k))
        self._require_full_text()
        rows = dict(self._rows())
        scores = bm25_scores(query, {id_: row.words for id_, row in rows.items()})
        hits = [
            SearchHit(id_, score, dict(rows[id_].fields))
            for id_, score in scores.items()
            if rows[id_].matches(id_, where) and (min_score is None or score >= min_score)
        ]
        return hits_page(_best(hits), top_k, offset=offset, group_by=group_by)

    def hybrid_search(
        self,
        vector: Sequence[float],
        text: str,
        top_k: int,
        *,
        where: RowFilter | None = None,
        fusion: Fusion = RRF,
        offset: int = 0,
        group_by: str = "",
    ) -> list[SearchHit]:
        """The best rows of both rankings."""
        query_vector(vector, top_k, dim=self.table.dim)

        def rank(limit: int) -> list[SearchHit]:
            near = self.search(vector, candidates(limit), where=where)
            words = self.search_text(text, candidates(limit), where=where)
            found = {hit.id: hit for hit in (*near, *words)}
            best = fuse(_ranking(near), _ranking(words), fusion)[:limit]
            return [replace(found[id_], score=score) for id_, score in best]

        return hits_page(rank, top_k, offset=offset, group_by=group_by)

    def get(self, ids: Collection_[str]) -> list[VectorRow]:
        """The rows of the ids."""
        rows = self.table.rows
        found = [(id_, rows[id_]) for id_ in ids if id_ in rows]
        return [VectorRow(id_, row.vector, dict(row.fields)) for id_, row in found]

    def scan(self, where: RowFilter | None = None, *, vectors: bool = True) -> Iterator[VectorRow]:
        """The rows as they are at the first one."""
        for id_, row in sorted(self._rows(), key=operator.itemgetter(0)):
            if row.matches(id_, where):
                yield VectorRow(id_, row.vector if vectors else b"", dict(row.fields))

    def count(self, ids: Collection_[str] | None = None, *, where: RowFilter | None = None) -> int:
        """How many rows there are, of ``ids`` or that match."""
        wanted = None if ids is None else set(ids)
        return sum(
            (wanted is None or id_ in wanted) and row.matches(id_, where)
            for id_, row in self._rows()
        )

    def _rows(self) -> list[tuple[str, _StoredRow]]:
        with self.table.lock:
            return list(self.table.rows.items())

    def close(self) -> None:
        """The rows stay for the next store of this name."""


def forget(name: str) -> None:
    """Drop the rows of collection ``name``, for stores opened from now on."""
    _TABLES.pop(name, None)


def _is_stale(fields: dict[str, Any], document: str, version: str) -> bool:
    if not document or fields.get("doc") != document:
        return False
    return not version or fields.get("version") != version


def _unit(vector: tuple[float, ...]) -> tuple[float, ...]:
    length = math.sqrt(_dot(vector, vector))
    return tuple(x / length for x in vector)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return float(sum(map(operator.mul, a, b)))


def _best(hits: Sequence[SearchHit]) -> Ranked:
    return lambda limit: heapq.nlargest(limit, hits, key=lambda hit: hit.score)


def _ranking(hits: Sequence[SearchHit]) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in hits]
