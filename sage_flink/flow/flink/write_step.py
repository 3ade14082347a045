"""The steps of a stage that write to a Python sink, dead letters included."""

import time
from collections.abc import Callable, Iterator, Sequence

from typing_extensions import override

from sage_flink.common.dead_letters import without_value
from sage_flink.common.errors import OperatorNeeded
from sage_flink.common.records import FailedRecord, Record, decode_many, encode_many
from sage_flink.flow.flink.batch_step import BatchStep
from sage_flink.flow.flink.stage import EpochSignal, Item, Step
from sage_flink.flow.ports import CheckpointedWriter, Refusal, Sink, Writer, has_snapshots
from sage_flink.flow.writes import write_all


class WriteStep(BatchStep):
    """Writes batches to a sink. ``ends_documents``: deletes reach it."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        sleep: Callable[[float], None] = time.sleep,
        *,
        ends_documents: bool = False,
    ) -> None:
        super().__init__(name, "written", sleep)
        self.sink, self.ends_documents = sink, ends_documents
        self.has_snapshots = has_snapshots(sink)
        self.writer: Writer | None = None

    @override
    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    @override
    def outcomes(self, item: bytes) -> Iterator[Item | FailedRecord]:
        records = decode_many(item)
        refused = self._store(records)
        self.read += len(records) - 1  # the stage has counted one
        self.emitted += len(records) - len(refused)
        for refusal in refused:
            yield FailedRecord(refusal.record, self.name, refusal.reason)

    @override
    def at_epoch(self, signal: EpochSignal) -> None:
        self.wait_for(lambda: self._at_epoch(signal))

    def _at_epoch(self, signal: EpochSignal) -> None:
        writer = self._open_writer()
        assert isinstance(writer, CheckpointedWriter)
        match signal.event:
            case "restore":
                writer.restore(
                    signal.epoch, is_fresh=signal.is_fresh, ends_documents=self.ends_documents
                )
            case "end":
                writer.end_epoch(signal.epoch)
            case "commit":
                writer.commit(signal.epoch, signal.watermark_ms)

    def _store(self, records: list[Record]) -> Sequence[Refusal]:
        return self.wait_for(lambda: self._write(records))

    def _write(self, records: list[Record]) -> Sequence[Refusal]:
        return write_all(self._open_writer(), records)

    def _open_writer(self) -> Writer:
        if self.writer is None:
            self.writer = self.sink.writer()
        return self.writer


class SingleRecordBatchStep(Step):
    """Record -> a batch of one: each dead letter is written without waiting for others."""

    def __init__(self, name: str) -> None:
        super().__init__(name, (name, "read", "emitted"))

    @override
    def outcomes(self, item: Record) -> Iterator[Item | FailedRecord]:
        yield encode_many([item])

    @override
    def refusal(self, element: bytes, reason: str) -> FailedRecord:
        raise OperatorNeeded(f"a dead letter cannot be written: {reason}")


class DeadLetterWriteStep(WriteStep):
    """Writes dead letters to a Python sink. One that it refuses is written without its value.

    Where that is refused too the job fails with OperatorNeeded, and restarts from its checkpoint:
    no sink is left for it.
    """

    @override
    def outcomes(self, item: bytes) -> Iterator[Item | FailedRecord]:
        for refused in super().outcomes(item):
            assert isinstance(refused, FailedRecord)
            cut = without_value(refused.record, refused.reason)
            if self._store([cut]):
                raise OperatorNeeded(f"the sink of the dead letters refused one: {refused!r:.300}")
        yield from ()
