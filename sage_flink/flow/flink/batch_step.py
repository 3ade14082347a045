"""Micro-batches, and the steps of a stage that take them and wait while a store is unavailable."""

import logging
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import tenacity
from pyflink.datastream import DataStream
from pyflink.datastream.functions import RuntimeContext
from pyflink.java_gateway import get_gateway
from typing_extensions import override

from sage_flink.common.errors import Retryable
from sage_flink.common.records import FailedRecord, decode_many
from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.batches import map_batch, map_batch_encoded
from sage_flink.flow.flink.python_steps import FunctionStep
from sage_flink.flow.flink.savepoint_state import operator_name
from sage_flink.flow.flink.stage import Item, Step

T = TypeVar("T")
LOG = logging.getLogger(__name__)
#: The longest pause before the next attempt at an unavailable store.
WAIT_MAX_S = 5
LOG_EVERY_S = 10


def micro_batches(
    stream: DataStream, uid: str, items_max: int, bytes_max: int, linger_s: float
) -> DataStream:
    """Java operator that collects records; its state is those that wait."""
    native = get_gateway().jvm.org.sage.flink.batching.MicroBatchOperator
    linger_ms = max(1, round(linger_s * 1000))
    out = native.wire(stream._j_data_stream, uid, items_max, bytes_max, linger_ms)
    return DataStream(out).name(operator_name(uid))


class BatchStep(Step):
    """Takes batches. While its store is unavailable the step waits, without a limit.

    The step keeps the one batch and reads no other, so backpressure builds up to the source and
    memory stays constant. A job that restarts during the wait resumes from its last checkpoint,
    which holds the batch as operator state, so no record is lost.

    The cause is logged at most every ``LOG_EVERY_S`` seconds. The counter ``store_away_ms`` shows
    the wait after its end (a Python step's metrics reach Flink at the end of its bundle); during
    the wait Flink's own ``isBackPressured`` shows it, on the steps upstream.
    """

    takes_records = False
    takes_batches = True

    def __init__(
        self, name: str, emitted: str, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(name, (name, "read", emitted))
        self.sleep = sleep

    @override
    def open(self, context: RuntimeContext, job: str) -> None:
        super().open(context, job)
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
    def refusal(self, element: bytes, reason: str) -> FailedRecord:
        (record,) = decode_many(element)
        return FailedRecord(record, self.name, reason)

    def wait_for(self, work: Callable[[], T]) -> T:
        """What ``work`` returns, once it does not raise ``Retryable`` any more."""
        started_s = time.monotonic()
        made = self.retry(work)
        if self.retry.statistics["attempt_number"] > 1:
            self.away_ms.inc(round((time.monotonic() - started_s) * 1000))
        return made

    def _log_wait(self, attempt: tenacity.RetryCallState) -> None:
        assert attempt.outcome is not None
        now_s = time.monotonic()
        if now_s - self.logged_s >= LOG_EVERY_S:
            self.logged_s = now_s
            waited_s = attempt.seconds_since_start or 0.0
            reason = attempt.outcome.exception()
            LOG.warning("step %r waits, %.0f s so far: %s", self.name, waited_s, reason)


class MapBatchesStep(BatchStep, FunctionStep):
    """Batch -> the records that the function makes from it."""

    node: MapBatches

    def __init__(self, node: MapBatches) -> None:
        super().__init__(node.name, "emitted")
        self.node = node

    @override
    def outcomes(self, item: bytes) -> Iterator[Item | FailedRecord]:
        node, records = self.node, decode_many(item)
        make = map_batch_encoded if self.is_last else map_batch
        made = self.wait_for(lambda: make(node, records))
        self.read += len(records) - 1  # the stage has counted one
        yield from made
