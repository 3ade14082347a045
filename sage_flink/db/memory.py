"""The reference vector store: exact cosine search over a dict, no server.

All stores of one name in this process share their rows, so that a pipeline's writer and a test's
search see the same rows; they are lost when the process ends. A search
costs about 10 ms per 1,000 rows of 384 numbers.
"""

import heapq
import math
import operator
import threading
from collections.abc import Collection as Collection_
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_flink.common.errors import ConfigError, NotFound
from sage_flink.db.collection import Collection
from sage_flink.db.json_fields import json_flaw
from sage_flink.db.vector_store import RefusedRow, RowDelete, SearchHit, VectorRow
from sage_flink.db.vectors import flaw, labels_flaw, numbers, query_vector

Stored = tuple[tuple[float, ...], dict[str, Any]]


@dataclass(slots=True)
class _VectorTable:
    dim: int
    rows: dict[str, Stored] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_TABLES: dict[str, _VectorTable] = {}


class MemoryVectorStore:
    """The rows of one collection in this process; a search finds a row as soon as it is written."""

    def __init__(self, spec: Collection, create: bool = True) -> None:
        if not create and spec.name not in _TABLES:
            raise NotFound(f"no collection {spec.name!r} in this process")
        self.table = _TABLES.setdefault(spec.name, _VectorTable(spec.dim))
        if self.table.dim != spec.dim:
            raise ConfigError(
                f"collection {spec.name!r}: it has dim {self.table.dim}, got dim {spec.dim}; "
                "use another name"
            )

    def upsert(self, rows: Sequence[VectorRow]) -> Sequence[RefusedRow]:
        """Keep the rows, the newest per id."""
        refused = []
        with self.table.lock:
            for row in rows:
                reason = flaw(row.vector, dim=self.table.dim) or labels_flaw(row.fields)
                if reason := reason or json_flaw(row.fields):
                    refused.append(RefusedRow(row.id, reason))
                else:
                    self.table.rows[row.id] = _unit(numbers(row.vector)), dict(row.fields)
        return refused

    def delete(self, deletes: Sequence[RowDelete]) -> None:
        """Delete the documents' rows except those of the versions kept."""
        with self.table.lock:
            for document, version in deletes:
                rows = self.table.rows.items()
                stale = [id_ for id_, (_, f) in rows if _is_stale(f, document, version)]
                for id_ in stale:
                    del self.table.rows[id_]

    def search(self, vector: Sequence[float], top_k: int) -> list[SearchHit]:
        """The exact nearest rows."""
        query = _unit(numbers(query_vector(vector, top_k, dim=self.table.dim)))
        with self.table.lock:
            rows = list(self.table.rows.items())
        hits = (SearchHit(id_, _dot(query, unit), dict(fields)) for id_, (unit, fields) in rows)
        return heapq.nlargest(top_k, hits, key=lambda hit: hit.score)

    def count(self, ids: Collection_[str] | None = None) -> int:
        """How many rows there are, or how many of ``ids``."""
        rows = self.table.rows
        return len(rows) if ids is None else sum(id_ in rows for id_ in set(ids))

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
