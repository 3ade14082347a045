"""The rows of a collection with snapshots, as its only writer changes them; see ``snapshots``."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

from sage_flink.common.errors import ConfigError, OperatorNeeded
from sage_flink.db.fields import field
from sage_flink.db.snapshots import (
    FAR,
    FROM,
    HIDDEN,
    MARKER,
    ROW,
    SUFFIX_BYTES,
    UNTIL,
    WROTE,
    Snapshot,
    end_documents,
    marker_row,
    markers_since,
    restamp,
    snapshot_of,
    stamp,
    undo,
    undone_by,
)
from sage_flink.db.vector_store import RefusedRow, RowDelete, VectorRow, VectorStore
from sage_flink.db.vectors import labels_flaw

ID_BYTES_MAX = 512 - SUFFIX_BYTES
#: Rows with vectors in one request; ids of rows in one filter, which are as many in memory.
BATCH_ROWS, IDS_MAX = 500, 5_000
#: Old versions are removed so many times in the time that they are kept.
VACUUMS = 10


class SnapshotRows:
    """Stores rows for the current epoch, ends and commits epochs, and rolls back to one.

    ``store`` has the rows themselves. Every method may be called again after StoreUnavailable.
    Another writer of the same collection would mix its epochs with these; it is noticed at a
    commit.
    """

    def __init__(
        self, store: VectorStore, dim: int, keep_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self.store, self.dim, self.keep_s, self.clock = store, dim, keep_s, clock
        self.epoch = self.committed = 0
        self.ends_documents = False
        self.vacuumed_s = clock()
        #: Of this epoch: the rows of documents that have not ended, how many versions of a document
        #: have, and the ids of other rows: their older ones are to be hidden.
        self._open: dict[str, dict[str, VectorRow]] = {}
        self._ends: dict[str, int] = {}
        self._shown: set[str] = set()

    def restore(self, epoch: int, *, is_fresh: bool, ends_documents: bool) -> None:
        """Take back what was written after ``epoch``, and begin the one behind it.

        A fresh job has no state: what its predecessor wrote after its last commit is taken back.
        With ``ends_documents`` rows with ``doc`` and ``version`` wait for the delete behind them.

        Raises:
            ConfigError: versions as old as ``epoch`` are not kept any more.
            OperatorNeeded: the clock is before the snapshots of an earlier job.
        """
        markers = sorted(one.epoch for one in self.snapshots())
        if not is_fresh and markers and epoch < markers[0]:
            raise ConfigError(
                f"snapshots: the state of epoch {epoch} is older than the versions that the "
                f"collection keeps ({self.keep_s:g} s), since {markers[0]}; start from a newer "
                "savepoint, or write to a new collection"
            )
        if is_fresh and markers and epoch <= markers[-1]:
            raise OperatorNeeded(
                f"snapshots: the clock of this machine ({epoch} us) is before the newest snapshot "
                f"({markers[-1]} us); set the clock, or write to a new collection"
            )
        target = epoch if not is_fresh else max(markers, default=0)
        self._undo(target, with_staged=is_fresh)
        self.epoch, self.ends_documents = epoch + 1, ends_documents
        self._forget()
        self.committed = max((one for one in markers if one <= target), default=0)
        if not markers:  # so that the oldest marker is the limit of a rollback
            self._mark(epoch, None)

    def upsert(self, rows: Sequence[VectorRow]) -> Sequence[RefusedRow]:
        """Store the rows for this epoch; as :meth:`VectorStore.upsert`."""
        refused = [RefusedRow(row.id, reason) for row in rows if (reason := _flaw(row))]
        flawed = {row.id for row in refused}
        stamped = [
            stamp(row, self.epoch, self._ends.get(row.fields.get("doc", ""), 0))
            for row in rows
            if row.id not in flawed
        ]
        reasons = dict(self.store.upsert(stamped)) if stamped else {}
        for row in stamped:
            if row.id in reasons:
                refused.append(RefusedRow(row.fields[ROW], reasons[row.id]))
            elif self.ends_documents and row.fields.get("doc") and row.fields.get("version"):
                self._open.setdefault(row.fields["doc"], {})[row.id] = row
            else:
                self._shown.add(row.fields[ROW])
        if len(self._shown) >= IDS_MAX:
            self._hide_older()
        return refused

    def delete(self, deletes: Sequence[RowDelete]) -> None:
        """End the documents: only the rows of the version kept are visible, from this epoch on."""
        keeps: dict[str, str] = {}
        for document, version in deletes:
            if document and not labels_flaw({"doc": document}):
                kept = keeps.setdefault(document, version)
                keeps[document] = version if version == kept else ""
        for documents in _groups(keeps):
            where = field("doc").in_(documents) & (field(UNTIL) == FAR)
            found = self.store.scan(where, vectors=False)
            self._change(end_documents(found, keeps, self.epoch))
            for document in documents:
                self._ends[document] = self._ends.get(document, 0) + 1
                self._open.pop(document, None)

    def end_epoch(self, epoch: int) -> None:
        """End the epoch at its checkpoint: later records belong to the next one."""
        staged = [row for rows in self._open.values() for row in rows.values()]
        self._store(restamp(row, {FROM: FAR}) for row in staged)
        self._hide_older()
        self._forget()
        self.epoch = epoch + 1

    def commit(self, epoch: int, watermark_ms: int | None = None) -> None:
        """Let readers see the rows of ``epoch``, which is durable in Flink.

        Waits until a search finds them; removes old versions from time to time.

        Raises:
            OperatorNeeded: the collection has another writer.
        """
        # A scan sees all writes acknowledged before it, and waits for them.
        found = [snapshot_of(row.fields) for row in self._scan_markers(self.committed)]
        if others := [one.epoch for one in found if one.epoch not in (self.committed, epoch)]:
            raise OperatorNeeded(
                f"snapshots: the collection has another writer, which committed {max(others)}; "
                "a collection with snapshots is written by one step of one job"
            )
        self._mark(epoch, watermark_ms)
        if self.clock() - self.vacuumed_s >= self.keep_s / VACUUMS:
            self.vacuumed_s = self.clock()
            self.vacuum()

    def vacuum(self) -> int:
        """Remove the rows that no snapshot of the last ``keep_s`` shows; returns how many."""
        oldest_ms = (self.clock() - self.keep_s) * 1000
        old = [one.epoch for one in self.snapshots() if one.completed_at_ms <= oldest_ms]
        if not old:
            return 0
        kept = max(old)  # a read as of that time needs it
        self.store.delete_where((field(UNTIL) == MARKER) & (field(WROTE) < kept))
        return self.store.delete_where((field(UNTIL) > MARKER) & (field(UNTIL) <= kept))

    def snapshots(self) -> list[Snapshot]:
        """The snapshots that are kept."""
        return [snapshot_of(row.fields) for row in self._scan_markers(0)]

    def close(self) -> None:
        """Wait until readers find the last marker, and close the store."""
        self.store.count([""])
        self.store.close()

    def _scan_markers(self, epoch: int) -> Iterator[VectorRow]:
        return self.store.scan(markers_since(epoch), vectors=False)

    def _mark(self, epoch: int, watermark_ms: int | None) -> None:
        marker = Snapshot(epoch, round(self.clock() * 1000), watermark_ms)
        self._store([marker_row(marker, self.dim)])
        self.committed = epoch

    def _undo(self, epoch: int, *, with_staged: bool) -> None:
        """Bring the rows to what they were when ``epoch`` ended; markers first."""
        self.store.delete_where(markers_since(epoch + 1))
        self.store.delete_where(field(WROTE) > epoch)
        if with_staged:
            self.store.delete_where(field(FROM) == FAR)
        found = self.store.scan(undone_by(epoch))
        self._store(row for one in found if (row := undo(one, epoch)) is not None)

    def _hide_older(self) -> None:
        """End the rows that the ones visible from this epoch on replace."""
        for ids in _groups(self._shown):
            older = (field(FROM) < self.epoch) & (field(UNTIL) == FAR)
            stale = self.store.scan(field(ROW).in_(ids) & older)
            self._store(restamp(row, {UNTIL: self.epoch}) for row in stale)
        self._shown.clear()

    def _change(self, changed: Mapping[str, Mapping[str, int]]) -> None:
        for keys in _groups(changed, BATCH_ROWS):
            self._store(restamp(row, changed[row.id]) for row in self.store.get(keys))

    def _store(self, rows: "Iterator[VectorRow] | Sequence[VectorRow]") -> None:
        waiting = iter(rows)
        while batch := list(islice(waiting, BATCH_ROWS)):
            if refused := self.store.upsert(batch):
                raise OperatorNeeded(f"snapshots: the store refused its own row: {refused[0]}")

    def _forget(self) -> None:
        self._open.clear()
        self._ends.clear()
        self._shown.clear()


def _groups(
    names: "Mapping[str, object] | set[str] | list[str]", most: int = IDS_MAX
) -> Iterator[list[str]]:
    ordered = sorted(names)
    for at in range(0, len(ordered), most):
        yield ordered[at : at + most]


def _flaw(row: VectorRow) -> str:
    if not row.id or (size := len(row.id.encode(errors="replace"))) > ID_BYTES_MAX:
        got = f"{size} bytes" if row.id else "an empty id"
        return f"id must have 1 to {ID_BYTES_MAX} bytes, got {got}"
    if reserved := HIDDEN & row.fields.keys():
        return f"field {min(reserved)!r} is the collection's own; rename it"
    return labels_flaw(row.fields)
