"""The balance of a job: what each step counted, and whether it adds up. Pure.

Three laws. An edge: a step has read what the step before it has emitted. A step: what it has read
it has emitted, written, dead-lettered, or holds in its state. The dead letters: as many as the
steps have refused. What is in flight is what a call has asked and has no answer for yet, and what
waits in a batch; elsewhere nothing is, because counts are taken where a checkpoint cuts the stream.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

Kind = Literal["read", "flat_map", "call", "batch", "union", "write", "dead_letters"]

#: The job parameter that holds the steps.
STEPS = "sage.steps"
#: What is counted of a step.
WHATS: dict[Kind, tuple[str, ...]] = {
    "read": ("read", "emitted"),
    "flat_map": ("read", "emitted", "dead_lettered"),
    "call": ("read", "asked", "answered", "emitted", "dead_lettered"),
    "batch": ("read",),
    "union": (),
    "write": ("read", "written", "dead_lettered"),
    "dead_letters": ("read", "written"),
}


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A step as the account sees it."""

    name: str
    kind: Kind
    inputs: tuple[str, ...]


class Books(msgspec.Struct, frozen=True):
    """Every counter since the job began, and as it stood when the job took on its present steps."""

    counts: dict[str, int]
    opening: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Row:
    """What one step counted since the job began; None where it cannot do that."""

    step: str
    read: int
    emitted: int | None = None
    written: int | None = None
    dead_lettered: int | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """One row a step, and in words each place where the counts do not add up."""

    rows: tuple[Row, ...]
    gaps: tuple[str, ...]

    @property
    def in_flight(self) -> int:
        """How many records are asked about or wait in a batch."""
        return sum(row.in_flight or 0 for row in self.rows)

    @property
    def closes(self) -> bool:
        """Whether everything adds up and nothing is in flight."""
        return not self.gaps and not self.in_flight


def counter(step: str, what: str) -> str:
    """The name of a counter.

    >>> counter("vectors", "written")
    'vectors.written'
    """
    return f"{step}.{what}"


def counters(steps: Sequence[Step]) -> list[str]:
    """The names of all counters of a job."""
    return [counter(step.name, what) for step in steps for what in WHATS[step.kind]]


def shape(steps: Sequence[Step]) -> str:
    """The steps as text; :func:`steps_of` reads it."""
    return msgspec.json.encode(steps).decode()


def steps_of(text: str) -> tuple[Step, ...]:
    """The steps that :func:`shape` wrote."""
    return msgspec.json.decode(text, type=tuple[Step, ...])


def balance(steps: Sequence[Step], books: Books) -> Balance:
    """What the books say of the steps."""
    sheet = _Sheet({step.name: step for step in steps}, books)
    return Balance(
        tuple(_row(sheet, step) for step in steps if step.kind != "union"), tuple(_gaps(sheet))
    )


@dataclass(frozen=True, slots=True)
class _Sheet:
    """The books with the steps they are about."""

    steps: dict[str, Step]
    books: Books

    def count(self, step: Step, what: str) -> int:
        return self.books.counts.get(counter(step.name, what), 0)

    def since(self, step: Step, what: str) -> int:
        """The count since the job has its present steps: only that far back do steps agree."""
        return self.count(step, what) - self.books.opening.get(counter(step.name, what), 0)

    def emitted(self, name: str) -> int:
        """What the step, or all that it unites, has emitted since the job has its steps."""
        step = self.steps[name]
        if step.kind == "union":
            return sum(map(self.emitted, step.inputs))
        return self.since(step, "emitted")

    def out_of_batch(self, batch: Step) -> int:
        """What the sink behind the batch has read."""
        (sink,) = (step for step in self.steps.values() if batch.name in step.inputs)
        return self.count(sink, "read")

    def held(self, step: Step) -> int | None:
        """What is in flight in the step; None where nothing can be."""
        match step.kind:
            case "call":
                return self.count(step, "asked") - self.count(step, "answered")
            case "batch":
                return self.count(step, "read") - self.out_of_batch(step)
        return None


def _row(sheet: _Sheet, step: Step) -> Row:
    known = {what: sheet.count(step, what) for what in WHATS[step.kind]}
    if step.kind == "batch":
        known["emitted"] = sheet.out_of_batch(step)
    return Row(
        step=step.name,
        read=known["read"],
        emitted=known.get("emitted"),
        written=known.get("written"),
        dead_lettered=known.get("dead_lettered"),
        in_flight=sheet.held(step),
    )


def _gaps(sheet: _Sheet) -> Iterator[str]:
    for step in sheet.steps.values():
        yield from _edge(sheet, step)
        yield from _inside(sheet, step)


def _edge(sheet: _Sheet, step: Step) -> Iterator[str]:
    if step.kind == "union":
        return  # its users ask for what it unites
    if step.kind == "dead_letters":
        gone = sum(sheet.since(other, "dead_lettered") for other in sheet.steps.values())
        yield from _differ("all steps -> dead-letters", "refused", gone, sheet.since(step, "read"))
    for name in step.inputs:
        if sheet.steps[name].kind != "batch":  # what a batch emits is defined by its sink
            emitted, read = sheet.emitted(name), sheet.since(step, "read")
            yield from _differ(f"{name} -> {step.name}", "emitted", emitted, read)


def _differ(where: str, what: str, came: int, read: int) -> Iterator[str]:
    if came != read:
        yield f"{where}: {came:,} {what}, {read:,} read ({_off(came - read)})"


def _inside(sheet: _Sheet, step: Step) -> Iterator[str]:
    held = sheet.held(step) or 0
    if held < 0:
        yield f"{step.name}: {-held:,} more came out than went in"
    if step.kind not in ("read", "call", "write", "dead_letters"):
        return
    out = "emitted" if step.kind in ("read", "call") else "written"
    read, done = sheet.count(step, "read"), sheet.count(step, out)
    dead = sheet.count(step, "dead_lettered")
    if off := read - done - dead - held:
        known = f"{done:,} {out} + {dead:,} dead-lettered" + (f" + {held:,} in flight" * (held > 0))
        yield f"{step.name}: {read:,} read, {known} ({_off(off)})"


def _off(by: int) -> str:
    return f"{by:,} missing" if by > 0 else f"{-by:,} too many"
