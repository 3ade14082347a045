"""The writer of a collection with snapshots: a row is visible once its checkpoint is complete."""

from collections.abc import Sequence

from sage_flink.common.records import Record
from sage_flink.db.row_writer import RowWriter
from sage_flink.db.snapshot_rows import SnapshotRows
from sage_flink.flow.ports import Refusal
from sage_flink.flow.stateful.watermarks import END_MS


class SnapshotWriter:
    """Writes records for the epoch that runs; a :class:`CheckpointedWriter`."""

    def __init__(self, rows: SnapshotRows, dim: int) -> None:
        self.rows, self._writer, self._newest_ms = rows, RowWriter(rows, dim), 0

    def restore(self, epoch: int, *, is_fresh: bool, ends_documents: bool) -> None:
        """Take back what was written after ``epoch``; raises as :meth:`SnapshotRows.restore`."""
        self.rows.restore(epoch, is_fresh=is_fresh, ends_documents=ends_documents)

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        """Apply the records, as :meth:`RowWriter.write`; no reader sees them yet."""
        self._newest_ms = max([self._newest_ms, *(record.timestamp_ms for record in records)])
        return self._writer.write(records)

    def end_epoch(self, epoch: int) -> None:
        """End the epoch at its checkpoint."""
        self.rows.end_epoch(epoch)

    def commit(self, epoch: int, watermark_ms: int | None) -> None:
        """Let readers see the rows; the end of a stream is as late as its newest record."""
        self.rows.commit(epoch, self._newest_ms if watermark_ms == END_MS else watermark_ms)

    def close(self) -> None:
        """Close the store; no write is pending."""
        self.rows.close()
