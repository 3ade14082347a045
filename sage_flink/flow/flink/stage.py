"""A stage: neighbouring Python steps in one Flink operator, as its workers run them.

Between the steps of a stage records stay objects, and a record waits for one bundle instead of one
for each step (PyFlink itself does not chain operators that have side outputs). Failures leave by
the side output ``FAILED``.

A stage counts in line with its output: where an element went straight through, one in and one out
of every step, ``RecordCounterOperator`` behind it counts it by the record that comes. Of every
other element the stage tells the difference in a receipt on the same output, which goes no further
than that operator. So the counts are as exact as the records, and cost next to nothing.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from pyflink.common import Types
from pyflink.datastream import OutputTag
from pyflink.datastream.functions import ProcessFunction, RuntimeContext

from sage_flink.common.letters import letter_message
from sage_flink.common.records import Failed, Record, decode, encode
from sage_flink.platform.record_accounting import counter_name

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
FAILED = OutputTag("failed", BYTES)
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
    is not ``counted`` has no counter operator behind it, which would take the counter deltas out.
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


def _letter(failed: Failed, job: str, run: str) -> bytes:
    """The dead letter as a record for the sink: the envelope's JSON under the record's id."""
    said = failed.of_job(job).to_json()
    return encode(letter_message(said, failed.id, failed.step, job, run))
