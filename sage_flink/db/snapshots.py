"""Snapshots of a collection: which rows a reader sees, and what a rollback takes back. Pure.

Each row carries three epochs, which are checkpoints of the job that writes: the epoch that WROTE
it, the one FROM which it is visible, and the one UNTIL which it is. An epoch is visible once its
checkpoint is complete: the writer then adds a marker, a row of its own, and a reader sees the rows
with ``from <= epoch < until`` of its newest marker. So new and old version of a document are stored
side by side, the key of a row is its id with the epoch that wrote it, and an update or delete
changes the UNTIL of the old rows only. (The key has a number, too: one epoch can end a version of a
document and begin the next.)

A checkpoint may cut through a document: some of its chunks are written, others wait in a call. The
rows of a document that has not ended when the checkpoint does are therefore STAGED, without a FROM,
and become visible together, in the epoch of the delete that follows them (``chunk`` makes one).
This is why a row has three epochs: a rollback deletes what later epochs wrote, and stages, hides or
revives what they only changed.

Markers are rows of the same collection, not of a second one: aliases, renaming and dropping work as
ever, and a store with one log applies them behind the rows that they make visible.

An epoch is the microsecond at which the job first started plus Flink's checkpoint id: it grows over
restarts, savepoints and later jobs, because no job makes a million checkpoints a second.

>>> row = VectorRow("a", b"", {"doc": "d", "version": "v1"})
>>> stored = stamp(row, 7)
>>> undo(stored, 6), undo(stored, 7) == stored
(None, True)
>>> public_row(stored) == row
True
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sage_flink.db.fields import Field, field
from sage_flink.db.filters import Compound, Condition, RowFilter
from sage_flink.db.vector_store import SearchHit, VectorRow

#: Fields that a store adds to the rows: the record's id, and the three epochs.
ROW, WROTE, FROM, UNTIL = "snapshot_row", "snapshot_wrote", "snapshot_from", "snapshot_until"
EPOCHS = (WROTE, FROM, UNTIL)
HIDDEN = frozenset({ROW, *EPOCHS})
#: The FROM of a staged row, and the UNTIL of a current one. Exact as a float, too.
FAR = 2**53
#: The UNTIL of a marker: no reader sees it as a row.
MARKER = 0
#: What a key adds to an id, which is therefore shorter than the other ids of a store.
SUFFIX_BYTES = 25


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A completed checkpoint: its epoch, when it was complete, and its watermark, if it had one."""

    epoch: int
    completed_at_ms: int
    watermark_ms: int | None = None

    @property
    def time_ms(self) -> int:
        """The time that it shows: event time, else that of its completion."""
        return self.completed_at_ms if self.watermark_ms is None else self.watermark_ms


def key_of(id_: str, epoch: int, number: int = 0) -> str:
    """The store's key of a row that ``epoch`` wrote.

    Keys are in the order of the ids, as far as these have no control characters. Not NUL but a tab
    ends the id: milvus-lite cannot read the escape of NUL in an expression.
    """
    return f"{id_}\t{epoch:016d}{number:08d}"


def stamp(row: VectorRow, epoch: int, number: int = 0) -> VectorRow:
    """The row as it is stored: written and visible from ``epoch`` on.

    ``number``: how many versions of its document the epoch has ended.
    """
    fields = {**row.fields, ROW: row.id, WROTE: epoch, FROM: epoch, UNTIL: FAR}
    return VectorRow(key_of(row.id, epoch, number), row.vector, fields)


def restamp(row: VectorRow, epochs: Mapping[str, int]) -> VectorRow:
    """The stored row with other epochs."""
    return replace(row, fields={**row.fields, **epochs})


def public_row(row: VectorRow) -> VectorRow:
    """The row as it was written."""
    return replace(row, id=row.fields[ROW], fields=_public(row.fields))


def public_hit(hit: SearchHit) -> SearchHit:
    """The hit as of the row that was written."""
    return replace(hit, id=hit.fields[ROW], fields=_public(hit.fields))


def marker_row(snapshot: Snapshot, dim: int) -> VectorRow:
    """The row of a completed checkpoint."""
    times = {"completed_at_ms": snapshot.completed_at_ms, "watermark_ms": snapshot.watermark_ms}
    fields = {name: ms for name, ms in times.items() if ms is not None}
    marker = VectorRow("", marker_vector(dim), fields)
    return restamp(stamp(marker, snapshot.epoch), {UNTIL: MARKER})


def marker_vector(dim: int) -> bytes:
    """The vector of every marker."""
    return b"\0\0\x80\x3f" + bytes(4 * (dim - 1))


def snapshot_of(fields: Mapping[str, Any]) -> Snapshot:
    """The snapshot of a marker's fields."""
    return Snapshot(fields[WROTE], fields["completed_at_ms"], fields.get("watermark_ms"))


def markers_since(epoch: int) -> RowFilter:
    """The markers of ``epoch`` and later."""
    return (field(UNTIL) == MARKER) & (field(WROTE) >= epoch)


def visible(epoch: int, where: RowFilter | None = None) -> RowFilter:
    """The rows of the snapshot for which ``where`` is true."""
    shown = (field(FROM) <= epoch) & (field(UNTIL) > epoch)
    return shown if where is None else shown & _stored_filter(where)


def other_versions(epoch: int) -> RowFilter:
    """The rows that the snapshot does not show: older versions, and those of later epochs."""
    return (field(UNTIL) > MARKER) & ((field(UNTIL) <= epoch) | (field(FROM) > epoch))


def _stored_filter(where: RowFilter) -> RowFilter:
    """The filter for stored rows, which have the id in another field."""
    if isinstance(where, Compound):
        return replace(where, parts=tuple(map(_stored_filter, where.parts)))
    if isinstance(where, Condition) and where.place[0] == "id":
        return replace(where, place=(ROW, *where.place[1:]))
    return where


def undone_by(epoch: int) -> RowFilter:
    """The rows that a rollback to ``epoch`` changes, once those written later are deleted."""
    return _after(field(FROM), epoch) | _after(field(UNTIL), epoch)


def _after(at: Field, epoch: int) -> RowFilter:
    return (at > epoch) & (at < FAR)


def undo(row: VectorRow, epoch: int) -> VectorRow | None:
    """The row as it was stored when ``epoch`` ended; None where it was not there."""
    if row.fields[WROTE] > epoch:
        return None
    return restamp(row, {name: FAR for name in (FROM, UNTIL) if row.fields[name] > epoch})


def end_documents(
    rows: Iterable[VectorRow], keeps: Mapping[str, str], epoch: int
) -> dict[str, dict[str, int]]:
    """The new epochs, by key, of the ``rows`` of documents that end in ``epoch``.

    ``rows`` are all rows of the documents without an UNTIL, ``keeps`` has the version that is kept
    by document. Its rows become visible, of several with one id the one written last; all others
    are hidden.
    """
    rows = list(rows)
    kept = sorted((row for row in rows if _is_kept(row, keeps)), key=_key)
    newest = set({row.fields[ROW]: row.id for row in kept}.values())
    shown = {row.id: {FROM: epoch} for row in kept if row.id in newest and row.fields[FROM] == FAR}
    hidden = {row.id: {UNTIL: epoch} for row in rows if row.id not in newest}
    return shown | hidden


def _is_kept(row: VectorRow, keeps: Mapping[str, str]) -> bool:
    version = row.fields.get("version")
    return bool(version) and version == keeps[row.fields["doc"]]


def _key(row: VectorRow) -> str:
    return row.id


def _public(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in HIDDEN}
