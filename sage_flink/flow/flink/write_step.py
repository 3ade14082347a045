"""The steps of a stage that write to a Python sink, dead letters included."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import tenacity
from pyflink.datastream.functions import RuntimeContext
from typing_extensions import override

from sage_flink.common.dead_letters import without_value
from sage_flink.common.errors import OperatorNeeded, Retryable
from sage_flink.common.records import FailedRecord, Record, decode_many, encode_many
from sage_flink.flow.flink.stage import Item, Step
from sage_flink.flow.ports import Refusal, Sink, Writer
from sage_flink.flow.writes import write_all

LOG = logging.getLogger(__name__)
#: The longest pause before the next attempt at an unavailable store.
WAIT_MAX_S = 5
LOG_EVERY_S = 10


class WriteStep(Step):
    """Writes batches to a sink. While the sink is unavailable the step waits, without a limit.

    The step keeps the one batch and reads no other, so backpressure builds up to the source and
    memory stays constant. A job that restarts during the wait resumes from its last checkpoint,
    which holds the batch as operator state, so no record is lost.

    The cause is logged at most every ``LOG_EVERY_S`` seconds. The counter ``store_away_ms`` shows
    the wait after its end (a Python step's metrics reach Flink at the end of its bundle); during
    the wait Flink's own ``isBackPressured`` shows it, on the steps upstream.
    """

    takes_records = False
    writes = True

    def __init__(self, name: str, sink: Sink, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(name, (name, "read", "written"))
        self.sink, self.sleep = sink, sleep
        self.writer: Writer | None = None

    @override
    def open(self, context: RuntimeContext, job: str) -> None:
        group = context.get_metrics_group().add_group("step", self.name)
        self.away_ms = group.counter("store_away_ms")
        self.logged_s = float("-inf")
        self.retry = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Retryable),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=WAIT_MAX_S),
            sleep=self.sleep,
            before_sleep=self._log_wait,
        )

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
    def refusal(self, element: bytes, reason: str) -> FailedRecord:
        (record,) = decode_many(element)
        return FailedRecord(record, self.name, reason)

    def _store(self, records: list[Record]) -> Sequence[Refusal]:
        started_s = time.monotonic()
        refused = self.retry(self._write, records)
        if self.retry.statistics["attempt_number"] > 1:
            self.away_ms.inc(round((time.monotonic() - started_s) * 1000))
        return refused

    def _write(self, records: list[Record]) -> Sequence[Refusal]:
        if self.writer is None:
            self.writer = self.sink.writer()
        return write_all(self.writer, records)

    def _log_wait(self, attempt: tenacity.RetryCallState) -> None:
        assert attempt.outcome is not None
        now_s = time.monotonic()
        if now_s - self.logged_s >= LOG_EVERY_S:
            self.logged_s = now_s
            waited_s = attempt.seconds_since_start or 0.0
            reason = attempt.outcome.exception()
            LOG.warning("step %r waits, %.0f s so far: %s", self.name, waited_s, reason)


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
