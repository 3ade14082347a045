"""The Python steps of the Flink target, as its workers run them.

Neighbouring steps share one operator, a :class:`Stage`: between them records stay objects, and a
record waits for one bundle instead of one for each step (PyFlink itself does not chain operators
that have side outputs). Failures leave by the side output ``FAILED``.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import tenacity
from pyflink.common import Types
from pyflink.datastream import OutputTag
from pyflink.datastream.functions import ProcessFunction, RuntimeContext

from sage_flink.common.errors import Retryable
from sage_flink.common.letters import letter_message
from sage_flink.common.records import Failed, Record, decode, decode_many, encode
from sage_flink.flow.graph import Call, FlatMap
from sage_flink.flow.ports import Refusal, Sink, Writer
from sage_flink.flow.steps import flat_map, guarded, request_id

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
FAILED = OutputTag("failed", BYTES)
#: Between operators bytes, between the steps of a stage records.
Item = Record | bytes


class Step:
    """One step of a stage. ``takes_records`` says whether its input is a record or raw bytes."""

    takes_records = True

    def __init__(self, name: str) -> None:
        self.name = name

    def open(self, metrics: Any) -> None:
        """Make the step's counters in Flink's group ``metrics``."""
        self.read = metrics.counter("read")
        self.emitted = metrics.counter("emitted")
        self.dead_lettered = metrics.counter("dead_lettered")

    def close(self) -> None:
        """Let go of what the step holds: nothing, unless it says otherwise."""

    def outcomes(self, item: Any) -> Iterator[Item | Failed]:
        """What becomes of ``item``: any number of items and failures."""
        raise AssertionError("a step says what it does")


class Stage(ProcessFunction):  # type: ignore[misc]
    """Steps one after the other in one operator, counted apart in Flink's metrics.

    Its letters are of ``job``; ``run`` is the Flink job it runs in, another one in a replay.
    """

    def __init__(self, steps: tuple[Step, ...], job: str, run: str) -> None:
        self.steps, self.job, self.run = steps, job, run

    def open(self, runtime_context: RuntimeContext) -> None:
        """Open every step, each with a metric group ``step.<name>``."""
        for step in self.steps:
            step.open(runtime_context.get_metrics_group().add_group("step", step.name))

    def close(self) -> None:
        """Close every step."""
        for step in self.steps:
            step.close()

    def process_element(
        self, value: bytes, ctx: ProcessFunction.Context
    ) -> Iterator[bytes | tuple[OutputTag, bytes]]:
        """What the last step makes of ``value``, encoded, and the failures of all of them."""
        yield from self._from(0, decode(value) if self.steps[0].takes_records else value)

    def _from(self, at: int, item: Item) -> Iterator[bytes | tuple[OutputTag, bytes]]:
        if at == len(self.steps):
            yield encode(item) if isinstance(item, Record) else item
            return
        step = self.steps[at]
        step.read.inc()
        for out in step.outcomes(item):
            if isinstance(out, Failed):
                step.dead_lettered.inc()
                yield FAILED, _letter(out, self.job, self.run)
            else:
                step.emitted.inc()
                yield from self._from(at + 1, out)


class FlatMapStep(Step):
    """Record -> the records that the function makes of it."""

    def __init__(self, node: FlatMap) -> None:
        super().__init__(node.name)
        self.node = node

    def outcomes(self, item: Record) -> Iterator[Item | Failed]:
        """The function's records, or the failure."""
        made = guarded(self.name, item, lambda: flat_map(self.node, item))
        yield from (made,) if isinstance(made, Failed) else made


class RequestStep(Step):
    """Record -> [record, request id, body], as the native call takes it."""

    def __init__(self, node: Call, job: str) -> None:
        super().__init__(f"{node.name}.request")
        self.node, self.job = node, job

    def outcomes(self, item: Record) -> Iterator[Item | Failed]:
        """The question to the pool, or the failure."""
        body = guarded(self.node.name, item, lambda: self.node.spec.request(item))
        if isinstance(body, Failed):
            yield body
        else:
            asked = (encode(item), request_id(self.job, self.node, item), body)
            yield msgspec.msgpack.encode(asked)


class _Answered(msgspec.Struct, array_like=True):
    """The native call's envelope; the call succeeded exactly when ``reason`` is empty."""

    record: bytes
    status: int
    attempts: int
    reason: str
    body: bytes


class AnswerStep(Step):
    """Envelope -> the record with its answer, or a failure."""

    takes_records = False

    def __init__(self, node: Call) -> None:
        super().__init__(f"{node.name}.answer")
        self.node = node

    def outcomes(self, item: bytes) -> Iterator[Item | Failed]:
        """The record that the spec makes of the answer, or the failure."""
        answer = msgspec.msgpack.decode(item, type=_Answered)
        record = decode(answer.record)
        if answer.reason:
            yield Failed.of(record, self.node.name, answer.reason, answer.attempts)
        else:
            spec = self.node.spec
            yield guarded(self.node.name, record, lambda: spec.answer(record, answer.body))


class WriteStep(Step):
    """A batch into the sink. While the sink is away the step waits, and back-pressure builds."""

    takes_records = False

    def __init__(self, name: str, sink: Sink) -> None:
        super().__init__(name)
        self.sink = sink
        self.opened: Writer | None = None

    def open(self, metrics: Any) -> None:
        """Make the counters and the patience; the sink opens with its first batch."""
        super().open(metrics)
        self.patience = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Retryable),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            stop=tenacity.stop_after_delay(120),
            reraise=True,
        )

    def close(self) -> None:
        """Close the sink, if it was opened."""
        if self.opened is not None:
            self.opened.close()

    def outcomes(self, item: bytes) -> Iterator[Item | Failed]:
        """The failures alone: what is stored goes no further."""
        records = decode_many(item)
        refused = self.patience(self._write, records)
        self.read.inc(len(records) - 1)  # the stage has counted one
        self.emitted.inc(len(records) - len(refused))
        for refusal in refused:
            yield Failed.of(refusal.record, self.name, refusal.reason)

    def _write(self, records: list[Record]) -> Sequence[Refusal]:
        if self.opened is None:
            self.opened = self.sink.writer()
        return self.opened.write(records)


def _letter(failed: Failed, job: str, run: str) -> bytes:
    """The dead letter as a record for the sink: the envelope's JSON under the record's id."""
    said = failed.of_job(job).to_json()
    return encode(letter_message(said, failed.id, failed.step, job, run))
