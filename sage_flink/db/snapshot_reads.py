"""Reads of a collection with snapshots: the rows of its newest snapshot, or as of a time."""

import time
from collections.abc import Collection as Ids
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.db.fields import field
from sage_flink.db.filters import VALUES_MAX, RowFilter
from sage_flink.db.fusion import RRF, Fusion
from sage_flink.db.snapshots import (
    Snapshot,
    markers_since,
    public_hit,
    public_row,
    snapshot_of,
    visible,
)
from sage_flink.db.vector_store import RefusedRow, RowDelete, SearchHit, VectorRow, VectorStore

#: How long a reader uses the newest snapshot that it knows: its look-up takes as long as a search.
NEWEST_S = 0.05
READ_ONLY = (
    "a collection with snapshots is written by a pipeline alone: its rows become visible with the "
    "checkpoints of the job; write to it by .write(name, collection(..., snapshots=True))"
)


@runtime_checkable
class WaitingStore(Protocol):
    """A store with reads that wait for the writes before them, unless ``waits`` is false."""

    waits: bool


class NewestSnapshot:
    """The epoch of the newest marker of a store, which may be ``NEWEST_S`` old."""

    def __init__(self, store: VectorStore) -> None:
        self._store, self._epoch, self._read_s = store, 0, -NEWEST_S

    def epoch(self) -> int:
        """The newest visible epoch; 0 before the first commit."""
        now_s = time.monotonic()
        if now_s - self._read_s >= NEWEST_S:
            # After a rollback there may be older ones only.
            self._epoch, self._read_s = self._since(self._epoch) or self._since(0), now_s
        return self._epoch

    def _since(self, epoch: int) -> int:
        rows = self._store.scan(markers_since(epoch), vectors=False)
        return max((snapshot_of(row.fields).epoch for row in rows), default=0)


class SnapshotReads:
    """A vector store for reading: each read sees one snapshot, the newest complete one.

    ``epoch``: always this one, so that several reads see the same rows. A scan sees one snapshot
    however long it takes, as long as its versions are kept. Writes are refused.

    No read waits for the store's next tick: the writer has waited before it committed.
    """

    snapshots = True

    def __init__(self, store: VectorStore, *, epoch: int | None = None) -> None:
        self._store, self._epoch = store, epoch
        self._newest = NewestSnapshot(store)
        if isinstance(store, WaitingStore):
            store.waits = False

    def as_of(self, time_: datetime | int) -> "SnapshotReads":
        """The rows as of an event time, a datetime with a time zone or milliseconds.

        They are those of the newest snapshot with a watermark up to it; without event time
        its completion counts. The view shares this store's connection.

        Raises:
            Rejected: it is before the oldest snapshot that is kept, or no time.
        """
        time_ms = _milliseconds(time_)
        kept = self.history()
        found = max((one.epoch for one in kept if one.time_ms <= time_ms), default=None)
        if found is None:
            raise Rejected(f"as_of: {time_ms} ms is before {_oldest(kept)}")
        return SnapshotReads(self._store, epoch=found)

    def history(self) -> list[Snapshot]:
        """The snapshots that are kept, oldest first."""
        markers = self._store.scan(markers_since(0), vectors=False)
        return [snapshot_of(row.fields) for row in markers]

    def search(
        self, vector: Sequence[float], top_k: int, *, where: RowFilter | None = None, **page: Any
    ) -> list[SearchHit]:
        """The nearest rows of the snapshot."""
        hits = self._store.search(vector, top_k, where=self._visible(where), **page)
        return list(map(public_hit, hits))

    def search_batch(
        self, vectors: Sequence[Sequence[float]], top_k: int, *, where: RowFilter | None = None
    ) -> list[list[SearchHit]]:
        """The nearest rows of each vector, all of one snapshot."""
        found = self._store.search_batch(vectors, top_k, where=self._visible(where))
        return [list(map(public_hit, hits)) for hits in found]

    def search_text(
        self, text: str, top_k: int, *, where: RowFilter | None = None, **page: Any
    ) -> list[SearchHit]:
        """The best rows of the snapshot by BM25; its statistics count all versions."""
        hits = self._store.search_text(text, top_k, where=self._visible(where), **page)
        return list(map(public_hit, hits))

    def hybrid_search(
        self,
        vector: Sequence[float],
        text: str,
        top_k: int,
        *,
        where: RowFilter | None = None,
        fusion: Fusion = RRF,
        **page: Any,
    ) -> list[SearchHit]:
        """The best rows of the snapshot in both rankings."""
        shown = self._visible(where)
        hits = self._store.hybrid_search(vector, text, top_k, where=shown, fusion=fusion, **page)
        return list(map(public_hit, hits))

    def get(self, ids: Ids[str]) -> list[VectorRow]:
        """The rows of the ids in the snapshot."""
        epoch, found = self._now(), dict[str, VectorRow]()
        for some in _groups(ids):
            rows = self._store.scan(visible(epoch, field("id").in_(some)))
            found |= {row.id: row for row in map(public_row, rows)}
        return [found[id_] for id_ in ids if id_ in found]

    def scan(self, where: RowFilter | None = None, *, vectors: bool = True) -> Iterator[VectorRow]:
        """The rows of the snapshot, ordered by id."""
        yield from map(public_row, self._store.scan(self._visible(where), vectors=vectors))

    def count(self, ids: Ids[str] | None = None, *, where: RowFilter | None = None) -> int:
        """How many rows of the snapshot there are, of ``ids`` or that match."""
        epoch = self._now()
        if ids is None:
            return self._store.count(where=visible(epoch, where))
        wanted = (field("id").in_(some) for some in _groups(ids))
        parts = (one if where is None else one & where for one in wanted)
        return sum(self._store.count(where=visible(epoch, part)) for part in parts)

    def upsert(self, rows: Sequence[VectorRow]) -> Sequence[RefusedRow]:
        """Refused with ConfigError."""
        raise ConfigError(READ_ONLY)

    def delete(self, deletes: Sequence[RowDelete]) -> None:
        """Refused with ConfigError."""
        raise ConfigError(READ_ONLY)

    def delete_where(self, where: RowFilter) -> int:
        """Refused with ConfigError."""
        raise ConfigError(READ_ONLY)

    def drop(self) -> None:
        """Delete the collection with all its versions. For tests and tools."""
        if drop := getattr(self._store, "drop", None):
            drop()

    def close(self) -> None:
        """Close the client."""
        self._store.close()

    def _visible(self, where: RowFilter | None) -> RowFilter:
        return visible(self._now(), where)

    def _now(self) -> int:
        return self._newest.epoch() if self._epoch is None else self._epoch


def _groups(ids: Ids[str]) -> Iterator[list[str]]:
    unique = sorted(set(ids))
    for at in range(0, len(unique), VALUES_MAX):
        yield unique[at : at + VALUES_MAX]


def _milliseconds(time_: datetime | int) -> int:
    if isinstance(time_, datetime) and time_.tzinfo is not None:
        return round(time_.timestamp() * 1000)
    if isinstance(time_, int) and not isinstance(time_, bool):
        return time_
    raise Rejected(f"as_of: a datetime with a time zone, or milliseconds, got {time_!r:.100}")


def _oldest(kept: Sequence[Snapshot]) -> str:
    if not kept:
        return "every snapshot: the collection has no snapshot yet"
    oldest_ms = min(one.time_ms for one in kept)
    return f"the oldest snapshot that is kept, of {oldest_ms} ms; a longer keep_s keeps more"
