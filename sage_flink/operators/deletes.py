"""Deletes in front of a sink that keeps the rows of deleted documents."""

from dataclasses import dataclass
from typing import ClassVar

from sage_flink.common.records import Record


@dataclass(frozen=True, slots=True)
class DropDeletes:
    """The upserts; deletes end here. For a sink that keeps rows of deleted documents.

    >>> upsert = Record(id="a", value="x")
    >>> [len(DropDeletes()(record)) for record in (upsert, upsert.delete_of("a", id="a"))]
    [1, 0]
    """

    supports_deletes: ClassVar[bool] = True

    def __call__(self, record: Record) -> tuple[Record, ...]:
        """The record itself, unless it is a delete."""
        return () if record.kind == "delete" else (record,)
