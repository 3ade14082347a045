"""The Python steps of the Flink target, as its workers run them.

Neighbouring steps share one operator, a :class:`Stage`: between them records stay objects, and a
record waits for one bundle instead of one for each step (PyFlink itself does not chain operators
that have side outputs). Failures leave by the side output ``FAILED``.

A stage counts in line with its output: where an element went straight through, one in and one out
of every step, the Java operator behind it (``Tally``) counts it by the record that comes. Of every
other element the stage tells the difference in a receipt on the same output, which goes no further
than that operator. So the counts are as exact as the records, and cost next to nothing.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import tenacity
from pyflink.common import Types
from pyflink.datastream import OutputTag
from pyflink.datastream.functions import ProcessFunction, RuntimeContext

from sage_flink.common.errors import Retryable
from sage_flink.common.letters import letter_message
from sage_flink.common.records import Failed, Record, decode, decode_many, encode
from sage_flink.common.removal import goes_past
from sage_flink.flow.graph import Call, FlatMap
from sage_flink.flow.ports import Refusal, Sink, Writer
from sage_flink.flow.steps import call_headers, flat_map, guarded, question
from sage_flink.platform.record_accounting import counter_name

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
FAILED = OutputTag("failed", BYTES)
LOG = logging.getLogger(__name__)
#: The longest pause before a store that is away is asked again.
WAIT_MAX_S = 5
LOG_EVERY_S = 10
#: Between operators bytes, between the steps of a stage records.
Item = Record | bytes


class Step:
    """One step of a stage. ``takes_records`` says whether its input is a record or raw bytes.

    ``counts_as`` is the node of the graph and what the step's input and output are to it. The
    three numbers are of the element at hand, set to zero by the stage.
    """

    takes_records = True

    def __init__(self, name: str, counts_as: tuple[str, str, str]) -> None:
        self.name = name
        node, read, emitted = counts_as
        self.counters = [counter_name(node, what) for what in (read, emitted, "dead_lettered")]
        self.read = self.emitted = self.dead_lettered = 0

    def open(self, context: RuntimeContext) -> None:
        """Make what the step needs where it runs: nothing, unless it says otherwise."""

    def close(self) -> None:
        """Let go of what the step holds: nothing, unless it says otherwise."""

    def outcomes(self, item: Any) -> Iterator[Item | Failed]:
        """What becomes of ``item``: any number of items and failures."""
        raise AssertionError("a step says what it does")


class Stage(ProcessFunction):  # type: ignore[misc]
    """Steps one after the other in one operator, counted apart.

    Its letters are of ``job``; ``run`` is the Flink job it runs in, another one in a replay. What
    is not ``counted`` has no Tally behind it, which would take the receipts out.
    """

    def __init__(
        self, steps: tuple[Step, ...], job: str, run: str, *, counted: bool = True
    ) -> None:
        self.steps, self.job, self.run, self.counted = steps, job, run, counted

    def open(self, runtime_context: RuntimeContext) -> None:
        """Open every step."""
        for step in self.steps:
            step.open(runtime_context)

    def close(self) -> None:
        """Close every step."""
        for step in self.steps:
            step.close()

    def process_element(
        self, value: bytes, ctx: ProcessFunction.Context
    ) -> Iterator[bytes | tuple[OutputTag, bytes]]:
        """What the last step makes of ``value``, the failures of all steps, and the receipt."""
        outputs = 0
        for step in self.steps:
            step.read = step.emitted = step.dead_lettered = 0
        for out in self._from(0, decode(value) if self.steps[0].takes_records else value):
            outputs += isinstance(out, bytes)
            yield out
        if self.counted and (moved := self._moved(outputs)):
            yield msgspec.msgpack.encode(moved)

    def _moved(self, outputs: int) -> dict[str, int]:
        """By how much the counters differ from what ``outputs`` records straight through are."""
        moved: dict[str, int] = {}
        for step in self.steps:
            counts = (step.read - outputs, step.emitted - outputs, step.dead_lettered)
            for named, by in zip(step.counters, counts, strict=True):
                if by:
                    moved[named] = moved.get(named, 0) + by
        return moved

    def straight(self) -> list[str]:
        """The counters of a record that goes straight through: read and emitted, of every step."""
        return [named for step in self.steps for named in step.counters[:2]]

    def _from(self, at: int, item: Item) -> Iterator[bytes | tuple[OutputTag, bytes]]:
        if at == len(self.steps):
            yield encode(item) if isinstance(item, Record) else item
            return
        step = self.steps[at]
        step.read += 1
        for out in step.outcomes(item):
            if isinstance(out, Failed):
                step.dead_lettered += 1
                yield FAILED, _letter(out, self.job, self.run)
            else:
                step.emitted += 1
                yield from self._from(at + 1, out)


class FlatMapStep(Step):
    """Record -> the records that the function makes of it."""

    def __init__(self, node: FlatMap) -> None:
        super().__init__(node.name, (node.name, "read", "emitted"))
        self.node = node

    def outcomes(self, item: Record) -> Iterator[Item | Failed]:
        """The function's records, or the failure."""
        made = guarded(self.name, item, lambda: flat_map(self.node, item))
        yield from (made,) if isinstance(made, Failed) else made


class RequestStep(Step):
    """Record -> [record, request id, body, headers], as the native call takes it.

    An empty body is nothing to ask: the call answers it at once, in its place, after no attempt.
    """

    def __init__(self, node: Call, job: str) -> None:
        super().__init__(f"{node.name}.request", (node.name, "read", "asked"))
        self.node, self.job = node, job

    def outcomes(self, item: Record) -> Iterator[Item | Failed]:
        """The question to the pool, or the failure."""
        body = guarded(self.node.name, item, lambda: question(item, self.node.spec.request))
        if isinstance(body, Failed):
            yield body
        else:
            headers = call_headers(self.job, self.node, item)
            asked = (encode(item), headers["x-request-id"], body, headers)
            yield msgspec.msgpack.encode(asked)


class _Answered(msgspec.Struct, array_like=True):
    """The native call's envelope: ok exactly when ``reason`` is empty, status 0 then: not asked."""

    record: bytes
    status: int
    attempts: int
    reason: str
    body: bytes


class AnswerStep(Step):
    """Envelope -> the record with its answer, or a failure."""

    takes_records = False

    def __init__(self, node: Call) -> None:
        super().__init__(f"{node.name}.answer", (node.name, "answered", "emitted"))
        self.node = node

    def outcomes(self, item: bytes) -> Iterator[Item | Failed]:
        """The record that the spec makes of the answer, or the failure."""
        answer = msgspec.msgpack.decode(item, type=_Answered)
        record = decode(answer.record)
        if answer.reason:
            yield Failed.of(record, self.node.name, answer.reason, answer.attempts)
        elif not answer.status:
            yield record  # it had nothing to ask, and passes as it came
        else:
            spec = self.node.spec
            yield guarded(self.node.name, record, lambda: spec.answer(record, answer.body))


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
        given = [record for record in records if not goes_past(self.sink, record)]
        refused = self._stored(given) if given else ()
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


def _letter(failed: Failed, job: str, run: str) -> bytes:
    """The dead letter as a record for the sink: the envelope's JSON under the record's id."""
    said = failed.of_job(job).to_json()
    return encode(letter_message(said, failed.id, failed.step, job, run))
