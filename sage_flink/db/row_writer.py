"""The writer of a collection: records become rows of a store, in their order."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.db.vector_store import RefusedRow, RowDelete, VectorRow
from sage_flink.db.vectors import flaw
from sage_flink.db.write_groups import write_groups
from sage_flink.flow.ports import Refusal


class RowStore(Protocol):
    """The part of a vector store that is written; see :class:`VectorStore`."""

    def upsert(self, rows: Sequence[VectorRow]) -> Sequence[RefusedRow]:
        """Store the rows; those refused come back."""

    def delete(self, deletes: Sequence[RowDelete]) -> None:
        """Delete the rows of each document except those of the version kept."""

    def close(self) -> None:
        """Close the client; no write is pending."""


class RowWriter:
    """Writes records into a vector store, idempotent by record id, in their order.

    Stores new rows before it deletes old ones, so that a search finds rows of a document also while
    it is updated.
    """

    def __init__(self, store: RowStore, dim: int) -> None:
        self.store, self.dim = store, dim

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        """Apply the records; upserts without a fitting vector, or refused by the store, come back.

        A delete is never refused: of a document whose name does not fit, the store has no rows.

        Raises:
            StoreUnavailable: no record is known to be applied; the same call may succeed later.
        """
        refused: list[Refusal] = []
        for group in write_groups(records):
            refused += self._upsert(group.upserts)
            if group.deletes:
                self.store.delete([RowDelete(*item) for item in group.deletes.items()])
        return refused

    def _upsert(self, records: Sequence[Record]) -> Sequence[Refusal]:
        rows: list[VectorRow] = []
        refused: list[Refusal] = []
        for record in records:
            try:
                rows.append(row_of(record, self.dim))
            except Rejected as verdict:
                refused.append(Refusal(record, str(verdict)))
        reasons = dict(self.store.upsert(rows)) if rows else {}
        flawed = {id(refusal.record) for refusal in refused}
        refused += [
            Refusal(record, reasons[record.id])
            for record in records
            if record.id in reasons and id(record) not in flawed
        ]
        return refused

    def close(self) -> None:
        """Close the store; no write is pending."""
        self.store.close()


def row_of(record: Record, dim: int) -> VectorRow:
    """The row of an upsert.

    Raises:
        Rejected: its value is not a mapping, or has no vector of ``dim`` finite float32.
    """
    if not isinstance(record.value, Mapping):
        got = type(record.value).__name__
        raise Rejected(f"value must be a mapping with 'vector', got {got}")
    vector = record.value.get("vector")
    if not isinstance(vector, bytes):
        raise Rejected(f"value['vector'] must be float32 bytes, got {type(vector).__name__}")
    if reason := flaw(vector, dim=dim):
        raise Rejected(reason)
    fields = {k: v for k, v in record.value.items() if k not in {"id", "vector"}}
    return VectorRow(record.id, vector, fields)
