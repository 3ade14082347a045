"""The steps of a stage that write to a Python sink."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import tenacity
from pyflink.datastream.functions import RuntimeContext

from sage_flink.common.errors import OperatorNeeded, Retryable
from sage_flink.common.records import Failed, Record, decode_many, encode_many
from sage_flink.flow.flink.stage import Item, Step
from sage_flink.flow.ports import Refusal, Sink, Writer

LOG = logging.getLogger(__name__)
#: The longest pause before a store that is away is asked again.
WAIT_MAX_S = 5
LOG_EVERY_S = 10


class WriteStep(Step):
    """A batch into the sink. While the sink is away the step waits, however long.

    It holds the one batch and takes no other, so back-pressure builds up to the source and memory
    stays as it is. A job that is restarted meanwhile begins again at its last checkpoint, where
    the batch is a part of the state: nothing is lost.

    What is wrong stands in the log, at most every ``LOG_EVERY_S`` seconds. The counter
    ``store_away_ms`` shows the wait once it is over (a Python step's metrics reach Flink at the end
    of its bundle); during it Flink's own ``isBackPressured`` does, on the steps before.
    """

    takes_records = False

    def __init__(self, name: str, sink: Sink, sleep: Callable[[float], None] = time.sleep) -> None:
        super().__init__(name, (name, "read", "written"))
        self.sink, self.sleep = sink, sleep
        self.opened: Writer | None = None

    def open(self, context: RuntimeContext) -> None:
        """Make the counter and the patience; the sink opens with its first batch."""
        group = context.get_metrics_group().add_group("step", self.name)
        self.away_ms = group.counter("store_away_ms")
        self.told_s = float("-inf")
        self.patience = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Retryable),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=WAIT_MAX_S),
            sleep=self.sleep,
            before_sleep=self._away,
        )

    def close(self) -> None:
        """Close the sink, if it was opened."""
        if self.opened is not None:
            self.opened.close()

    def outcomes(self, item: bytes) -> Iterator[Item | Failed]:
        """The failures alone: what is stored, and acknowledged, is counted and goes no further."""
        records = decode_many(item)
        refused = self._stored(records)
        self.read += len(records) - 1  # the stage has counted one
        self.emitted += len(records) - len(refused)
        for refusal in refused:
            yield Failed.of(refusal.record, self.name, refusal.reason)

    def _stored(self, records: list[Record]) -> Sequence[Refusal]:
        began_s = time.monotonic()
        refused = self.patience(self._write, records)
        if self.patience.statistics["attempt_number"] > 1:
            self.away_ms.inc(round((time.monotonic() - began_s) * 1000))
        return refused

    def _write(self, records: list[Record]) -> Sequence[Refusal]:
        if self.opened is None:
            self.opened = self.sink.writer()
        return self.opened.write(records)

    def _away(self, attempt: tenacity.RetryCallState) -> None:
        assert attempt.outcome is not None
        now_s = time.monotonic()
        if now_s - self.told_s >= LOG_EVERY_S:
            self.told_s = now_s
            waited_s = attempt.seconds_since_start or 0.0
            reason = attempt.outcome.exception()
            LOG.warning("step %r waits, %.0f s so far: %s", self.name, waited_s, reason)


class SingleRecordBatchStep(Step):
    """Record -> a batch of this one: where the native micro-batch is missing."""

    def __init__(self, name: str) -> None:
        super().__init__(name, (name, "read", "emitted"))

    def outcomes(self, item: Record) -> Iterator[Item | Failed]:
        """The batch."""
        yield encode_many([item])


class DeadLetterWriteStep(WriteStep):
    """Dead letters into a Python sink. There is nowhere left for one that is refused."""

    def outcomes(self, item: bytes) -> Iterator[Item | Failed]:
        """Nothing.

        Raises:
            OperatorNeeded: the sink refused a letter; the job starts again from its checkpoint.
        """
        for refused in super().outcomes(item):
            raise OperatorNeeded(f"the sink of the dead letters refused one: {refused!r:.300}")
        yield from ()
