"""A stage: neighbouring Python steps in one Flink operator, as its workers run them.

Between the steps of a stage records stay objects, and a record waits for one bundle instead of one
for each step (PyFlink itself does not chain operators that have side outputs). Failures leave by
the side output ``FAILED``.

A stage counts in line with its output. An element that passes through, one in and one out of every
step, is counted by the Java operator behind the stage. For every other element the stage emits a
counter delta on the same output, which that operator removes. So the counts are as exact as the
records, at hardly any cost.

A stage raises only where no record is to blame: a task that fails for one record fails for it
again. Its operator, ``PythonStageOperator``, starts a worker that died again, and sends what ended
two of them back as a signal, to be made a dead letter.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Literal

import cloudpickle  # type: ignore[import-untyped]  # installed with apache-flink
import msgspec
from pyflink.common import Types
from pyflink.datastream import DataStream, OutputTag
from pyflink.datastream.data_stream import _get_one_input_stream_operator
from pyflink.datastream.functions import ProcessFunction, RuntimeContext
from pyflink.java_gateway import get_gateway

from sage_flink.common.dead_letters import to_message
from sage_flink.common.records import FailedRecord, Record, decode, encode
from sage_flink.flow.flink.element_groups import GROUP, OutputGroup, elements_of, encode_delta
from sage_flink.flow.flink.record_watch import RecordWatch
from sage_flink.flow.flink.stage_loading import load_alone
from sage_flink.platform.record_accounting import counter_name

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
FAILED = OutputTag("failed", BYTES)

#: Changed states, for the operator itself: no stream is built from it.
STATE = OutputTag("state", BYTES)
#: Between the steps of a stage records, behind the last one bytes.
Item = Record | bytes
#: The first byte of a MessagePack map: a signal of the operator. Elements are arrays.
_MAP, _MAP_MASK = 0x80, 0xF0


def failed_stream(j_stream: Any) -> DataStream:
    """The dead letters of an operator, Python's or a native one."""
    # Not PyFlink's get_side_output: it adds a Python operator without effect.
    return DataStream(j_stream.getSideOutput(FAILED.get_java_output_tag()))


class EpochSignal(msgspec.Struct, frozen=True):
    """What happens to an epoch of a sink with snapshots; see ``SnapshotSinkOperator``."""

    event: Literal["restore", "end", "commit"]
    epoch: int
    is_fresh: bool = False
    watermark_ms: int | None = None


class _Signal(msgspec.Struct):
    """A signal: to make a dead letter of ``refused``, to emit changed ``states``, or an ``epoch``.

    Without any of them only to open the stage.
    """

    refused: bytes = b""
    states: bool = False
    epoch: EpochSignal | None = None


class Step:
    """One step of a stage. ``takes_records``: its input is a record, not raw bytes.
    ``takes_batches``: it is a batch, and the step may wait for a store. ``state_ttl_ms``: it keeps
    state for each key, which expires after that time; 0: never; None: it keeps no state. Such a
    step is the first of its stage.

    ``has_snapshots``: it writes a sink with them, and is the last of its stage.

    Where it ``is_last`` its items are bytes. A step encodes what it makes itself, so that an item
    that cannot be encoded is a failure of this step with its input as the record.

    ``counts_as`` is the node of the graph and the counters of the step's input and output. The
    three numbers are those of the current element, and so is ``merged``: how many results of calls
    are those of another request. The stage resets them.
    """

    takes_records = True
    takes_batches = False
    has_snapshots = False
    is_last = False
    state_ttl_ms: int | None = None

    def __init__(self, name: str, counts_as: tuple[str, str, str]) -> None:
        self.name, self.counts_as = name, counts_as
        node, read, emitted = counts_as
        self.counters = [counter_name(node, count) for count in (read, emitted, "dead_lettered")]
        self.read = self.emitted = self.dead_lettered = self.merged = 0

    def open(self, context: RuntimeContext, job: str) -> None:
        """Create the step's resources on the worker; the default is empty."""

    def close(self) -> None:
        """Close the step's resources; the default is empty."""

    def outcomes(self, item: Any) -> Iterator[Item | FailedRecord]:
        """The items and failures that the step makes from ``item``."""
        raise AssertionError("every step overrides this")

    def state_changes(self) -> Iterator[bytes]:
        """``[key, state]`` of each state that changed in this bundle; None: as the initial one."""
        return iter(())

    def at_epoch(self, signal: EpochSignal) -> None:
        """Restore, end or commit an epoch; only a step with snapshots has them."""
        raise AssertionError(f"step {self.name!r} has no epochs")

    def refusal(self, element: bytes, reason: str) -> FailedRecord:
        """The record of an element that the stage of this step cannot take."""
        return FailedRecord(decode(element), self.counts_as[0], reason)


class Stage(ProcessFunction):  # type: ignore[misc]
    """A chain of steps in one operator, counted separately.

    Its dead letters belong to ``job``; ``run`` is the Flink job it runs in, a different one in a
    replay. Without ``counted`` it emits no counter deltas, since no operator would remove them. A
    worker in which an element takes longer than ``record_timeout_s`` ends; a stage that takes
    batches has no such limit, because it waits for its store.
    """

    def __init__(
        self,
        steps: tuple[Step, ...],
        job: str,
        run: str,
        *,
        counted: bool = True,
        record_timeout_s: float = 0.0,
    ) -> None:
        self.steps, self.job, self.run, self.counted = steps, job, run, counted
        self.watch = RecordWatch(0.0 if self.takes_batches else record_timeout_s)
        for step in steps:
            step.is_last = step is steps[-1]
        self.resources: ExitStack | None = None

    @property
    def takes_batches(self) -> bool:
        """Whether one of the steps takes batches."""
        return any(step.takes_batches for step in self.steps)

    def __reduce__(self) -> tuple[Any, ...]:
        """The pickle, whose parts are loaded by :func:`load_alone`."""
        return load_alone, (cloudpickle.dumps((type(self), self.__dict__)),)

    def open(self, runtime_context: RuntimeContext) -> None:
        """Open every step; when one fails, the steps before it are closed."""
        with ExitStack() as resources:
            for step in self.steps:
                step.open(runtime_context, self.job)
                resources.callback(step.close)
            resources.enter_context(self.watch)
            self.resources = resources.pop_all()

    def close(self) -> None:
        """Close every open step, also when one of them fails to close."""
        if self.resources is not None:
            self.resources.close()

    def process_element(
        self, value: bytes, ctx: ProcessFunction.Context
    ) -> Iterator[bytes | tuple[OutputTag, bytes]]:
        """The last step's items for ``value``, the failures of all steps, and the counter delta.

        Those of a group of elements are in groups, too, with one delta for all of them.
        """
        delta: dict[str, int] = {}
        if value[0] != GROUP:
            yield from self._process(value, delta)
            yield from encode_delta(delta)
            return
        items = OutputGroup()
        for element in elements_of(value):
            for out in self._process(element, delta):
                if isinstance(out, bytes):
                    yield from items.add(out)
                else:
                    yield out
        for encoded in encode_delta(delta):
            yield from items.add(encoded)
        yield from items.end()

    def _process(
        self, value: bytes, delta: dict[str, int]
    ) -> Iterator[bytes | tuple[OutputTag, bytes]]:
        """The outputs of one element; its counts are added to ``delta``."""
        outputs = 0
        for step in self.steps:
            step.read = step.emitted = step.dead_lettered = step.merged = 0
        self.watch.started_s = time.monotonic()
        for out in self._outputs(value):
            outputs += isinstance(out, bytes)
            yield out
        self.watch.started_s = 0.0
        if self.counted:
            self._add_counts(delta, outputs)

    def _outputs(self, value: bytes) -> Iterator[bytes | tuple[OutputTag, bytes]]:
        if value[0] & _MAP_MASK != _MAP:
            return self._from(0, decode(value) if self.steps[0].takes_records else value)
        signal = msgspec.msgpack.decode(value, type=_Signal)
        if signal.states:
            return ((STATE, change) for change in self.steps[0].state_changes())
        if signal.epoch is not None:
            self.steps[-1].at_epoch(signal.epoch)
        return self._refusals(signal.refused) if signal.refused else iter(())

    def _refusals(self, element: bytes) -> Iterator[bytes | tuple[OutputTag, bytes]]:
        first = self.steps[0]
        first.read = first.dead_lettered = 1
        names = ", ".join(step.name for step in self.steps)
        limit = (
            f", or it took longer than {self.watch.timeout_s:g} s" if self.watch.timeout_s else ""
        )
        reason = (
            f"two Python workers ended while they ran {names} on this record: a crash in native "
            f"code, os._exit, or the machine out of memory{limit}; see `sage logs taskmanager`"
        )
        yield self._dead_letter(first.refusal(element, reason))

    def _dead_letter(self, failed: FailedRecord) -> tuple[OutputTag, bytes]:
        return FAILED, encode(to_message(failed, self.job, self.run))

    def _add_counts(self, delta: dict[str, int], outputs: int) -> None:
        """Add the counts of this element minus those of ``outputs`` records that pass through."""
        for step in self.steps:
            if step.merged:
                merged = counter_name(step.counts_as[0], "merged")
                delta[merged] = delta.get(merged, 0) + step.merged
            if step.read == step.emitted == outputs and not step.dead_lettered:
                continue
            counts = (step.read - outputs, step.emitted - outputs, step.dead_lettered)
            for name, count in zip(step.counters, counts, strict=True):
                if count:
                    delta[name] = delta.get(name, 0) + count

    def passthrough_counters(self) -> list[str]:
        """The counters of a record that passes through: read and emitted, of every step."""
        return [name for step in self.steps for name in step.counters[:2]]

    def _from(self, at: int, item: Item) -> Iterator[bytes | tuple[OutputTag, bytes]]:
        if at == len(self.steps):
            assert isinstance(item, bytes)
            yield item
            return
        step = self.steps[at]
        step.read += 1
        for out in step.outcomes(item):
            if isinstance(out, FailedRecord):
                step.dead_lettered += 1
                yield self._dead_letter(out)
            else:
                step.emitted += 1
                yield from self._from(at + 1, out)


def add_stage(stream: DataStream, stage: Stage, name: str) -> DataStream:
    """The output of ``stage`` on ``stream``, under its name.

    It is PyFlink's process operator with what ``PythonStageOperator`` adds, and for a step with
    state ``KeyedStageOperator``, for one with snapshots ``SnapshotSinkOperator``.
    """
    # Not at the top: this imports all of Apache Beam, which takes a second.
    from pyflink.fn_execution.flink_fn_execution_pb2 import UserDefinedDataStreamFunction

    kind = UserDefinedDataStreamFunction.PROCESS
    operator, _ = _get_one_input_stream_operator(stream, stage, kind, BYTES)
    native, j_stream = get_gateway().jvm.org.sage.flink, stream._j_data_stream
    if (ttl_ms := stage.steps[0].state_ttl_ms) is not None:
        return DataStream(native.keyed.KeyedStageOperator.wire(j_stream, operator, name, ttl_ms))
    if stage.steps[-1].has_snapshots:
        return DataStream(native.snapshot.SnapshotSinkOperator.wire(j_stream, operator, name))
    return DataStream(
        native.python.PythonStageOperator.wire(j_stream, operator, name, stage.takes_batches)
    )
