"""The reference vector store: exact cosine search over a dict, no server.

All stores of one name in this process share their rows, so that a pipeline's writer and a test's
search see the same; nothing outlives the process. A search costs about 10 ms per 1,000 rows of 384.
"""

import heapq
import json
import math
import operator
import threading
from collections.abc import Collection as Collection_
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_flink.common.errors import ConfigError, NotFound
from sage_flink.common.removal import Removal
from sage_flink.db.collection import Collection
from sage_flink.db.port import Hit, RefusedRow, Row
from sage_flink.db.vectors import flaw, labels_flaw, numbers, question

Stored = tuple[tuple[float, ...], dict[str, Any]]


@dataclass(slots=True)
class _Table:
    dim: int
    rows: dict[str, Stored] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_TABLES: dict[str, _Table] = {}


class MemoryStore:
    """The rows of one collection in this process; a row written is searchable at once."""

    def __init__(self, spec: Collection, create: bool = True) -> None:
        if not create and spec.name not in _TABLES:
            raise NotFound(f"no collection {spec.name!r} in this process")
        self.table = _TABLES.setdefault(spec.name, _Table(spec.dim))
        if self.table.dim != spec.dim:
            raise ConfigError(
                f"collection {spec.name!r}: it has dim {self.table.dim}, got dim {spec.dim}; "
                "use another name"
            )

    def upsert(self, rows: Sequence[Row]) -> Sequence[RefusedRow]:
        """Keep the rows, the newest per id."""
        refused = []
        with self.table.lock:
            for row in rows:
                if reason := flaw(row.vector, dim=self.table.dim) or _unsayable(row.fields):
                    refused.append(RefusedRow(row.id, reason))
                else:
                    kept = _unit(numbers(row.vector)), dict(row.fields)
                    self.table.rows[row.id] = kept
        return refused

    def delete(self, removals: Sequence[Removal]) -> None:
        """Remove the documents' rows but those of the versions kept."""
        with self.table.lock:
            for doc, keep in removals:
                stale = [i for i, (_, f) in self.table.rows.items() if _stale(f, doc, keep)]
                for id_ in stale:
                    del self.table.rows[id_]

    def search(self, vector: Sequence[float], top_k: int) -> list[Hit]:
        """The exact nearest rows."""
        asked = _unit(numbers(question(vector, top_k, dim=self.table.dim)))
        with self.table.lock:
            rows = list(self.table.rows.items())
        hits = (Hit(id_, _dot(asked, unit), dict(fields)) for id_, (unit, fields) in rows)
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


def _unsayable(fields: dict[str, Any]) -> str:
    if reason := labels_flaw(fields):
        return reason
    try:
        json.dumps(fields)
    except (TypeError, ValueError) as error:
        return f"fields cannot be said in JSON: {error}"
    return ""


def _stale(fields: dict[str, Any], doc: str, keep: str) -> bool:
    return bool(doc) and fields.get("doc") == doc and (not keep or fields.get("version") != keep)


def _unit(vector: tuple[float, ...]) -> tuple[float, ...]:
    length = math.sqrt(_dot(vector, vector))
    return tuple(x / length for x in vector)


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return float(sum(map(operator.mul, a, b)))
