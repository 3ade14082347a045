"""Record accounting of a job: what each step counted, and whether the counts are balanced. Pure.

Three laws. An edge: a step has read what the step before it has emitted. A step: what it has read
it has emitted, written, dead-lettered, dropped, or holds in its state. The dead letters: as many
as the steps have refused. Only calls without a result and records that wait in a batch are in
flight: counts are taken where a checkpoint barrier cuts the stream, and no other step holds a
record there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

Kind = Literal[
    "read",
    "flat_map",
    "call",
    "batch",
    "union",
    "write",
    "event_time",
    "processing_time",
    "key_by",
    "window",
    "late",
    "deduplicate",
    "changes_only",
    "rate_limit",
    "join",
    "broadcast_join",
    "fold",
    "dead_letters",
]

#: The job parameter that holds the steps.
STEPS = "sage.steps"
#: The record counters of a step, by its kind.
COUNTERS: dict[Kind, tuple[str, ...]] = {
    "read": ("read", "emitted"),
    "flat_map": ("read", "emitted", "dead_lettered"),
    "call": ("read", "asked", "answered", "emitted", "dead_lettered", "merged"),
    "batch": ("read",),
    "union": (),
    "write": ("read", "written", "dead_lettered"),
    "event_time": ("read", "emitted", "dead_lettered"),
    "processing_time": ("read", "emitted"),
    "key_by": ("read", "emitted", "dead_lettered"),
    "window": ("read", "emitted", "late", "dead_lettered"),
    "late": ("read", "emitted"),
    "deduplicate": ("read", "emitted", "dropped"),
    "changes_only": ("read", "emitted", "dropped", "dead_lettered"),
    "rate_limit": ("read", "emitted", "dropped", "dead_lettered"),
    "join": ("left_read", "right_read", "emitted", "late", "dead_lettered"),
    "broadcast_join": ("left_read", "right_read", "emitted", "changes", "dead_lettered"),
    "fold": ("read", "emitted", "dead_lettered"),
    "dead_letters": ("read", "written"),
}


#: Steps that count the records of each of their inputs.
_JOINS = ("join", "broadcast_join")


class CountedStep(msgspec.Struct, frozen=True, array_like=True):
    """One step of the graph, as much of it as record accounting needs."""

    name: str
    kind: Kind
    inputs: tuple[str, ...]


class CounterSnapshot(msgspec.Struct, frozen=True):
    """All record counters of a job at one checkpoint.

    ``opening`` holds the values at the time when the job got its present steps.
    """

    counts: dict[str, int]
    opening: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class StepCounts:
    """The counts of one step since the job's first start; None where the step has no such count.

    ``merged`` records are among the emitted: those that got the answer of another request.
    """

    step: str
    read: int
    emitted: int | None = None
    written: int | None = None
    dead_lettered: int | None = None
    dropped: int | None = None
    merged: int | None = None
    in_flight: int | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """The counts of every step, and one sentence for each place where they do not add up."""

    rows: tuple[StepCounts, ...]
    gaps: tuple[str, ...]

    @property
    def in_flight(self) -> int:
        """How many records wait for the result of a call or in a batch."""
        return sum(row.in_flight or 0 for row in self.rows)

    @property
    def is_balanced(self) -> bool:
        """Whether all counts add up and no record is in flight."""
        return not self.gaps and not self.in_flight


def counter_name(step: str, count: str) -> str:
    """The name of a counter.

    >>> counter_name("vectors", "written")
    'vectors.written'
    """
    return f"{step}.{count}"


def counter_names(steps: Sequence[CountedStep]) -> list[str]:
    """The names of all counters of a job."""
    return [counter_name(step.name, count) for step in steps for count in COUNTERS[step.kind]]


def encode_steps(steps: Sequence[CountedStep]) -> str:
    """The steps as JSON; :func:`decode_steps` reads it."""
    return msgspec.json.encode(steps).decode()


def decode_steps(text: str) -> tuple[CountedStep, ...]:
    """The steps that :func:`encode_steps` wrote."""
    return msgspec.json.decode(text, type=tuple[CountedStep, ...])


def balance(steps: Sequence[CountedStep], snapshot: CounterSnapshot) -> Balance:
    """The balance of a job with these steps and counters."""
    counted = _CountedGraph({step.name: step for step in steps}, snapshot)
    rows = tuple(_row(counted, step) for step in steps if step.kind != "union")
    return Balance(rows, tuple(_gaps(counted)))


@dataclass(frozen=True, slots=True)
class _CountedGraph:
    """The steps with their counters."""

    steps: dict[str, CountedStep]
    snapshot: CounterSnapshot

    def count(self, step: CountedStep, count: str) -> int:
        return self.snapshot.counts.get(counter_name(step.name, count), 0)

    def since_opening(self, step: CountedStep, count: str) -> int:
        """The count since the job got its present steps: earlier counts of two steps may differ."""
        opening = self.snapshot.opening.get(counter_name(step.name, count), 0)
        return self.count(step, count) - opening

    def emitted_since_opening(self, name: str) -> int:
        """What the step, or all inputs of the union, emitted since the job got its steps."""
        step = self.steps[name]
        if step.kind == "union":
            return sum(map(self.emitted_since_opening, step.inputs))
        return self.since_opening(step, "emitted")

    def sent_since_opening(self, name: str, reader: CountedStep) -> int:
        """What the step sent to ``reader``: its results, or its late records."""
        if reader.kind == "late":
            return self.since_opening(self.steps[name], "late")
        return self.emitted_since_opening(name)

    def out_of_batch(self, batch: CountedStep) -> int:
        """How many records the sink behind the batch has read."""
        (sink,) = (step for step in self.steps.values() if batch.name in step.inputs)
        return self.count(sink, "read")

    def in_flight(self, step: CountedStep) -> int | None:
        """How many records are in flight in the step; None where none can be."""
        match step.kind:
            case "call":
                return self.count(step, "asked") - self.count(step, "answered")
            case "batch":
                return self.count(step, "read") - self.out_of_batch(step)
        return None


def _row(graph: _CountedGraph, step: CountedStep) -> StepCounts:
    counts = {count: graph.count(step, count) for count in COUNTERS[step.kind]}
    if step.kind == "batch":
        counts["emitted"] = graph.out_of_batch(step)
    return StepCounts(
        step=step.name,
        read=sum(counts[count] for count in _reads(step)),
        emitted=counts.get("emitted"),
        written=counts.get("written"),
        dead_lettered=counts.get("dead_lettered"),
        dropped=counts.get("dropped"),
        merged=counts.get("merged"),
        in_flight=graph.in_flight(step),
    )


def _reads(step: CountedStep) -> tuple[str, ...]:
    """The counters of what the step has read: one, or one for each input of a join."""
    return ("left_read", "right_read") if step.kind in _JOINS else ("read",)


def _gaps(graph: _CountedGraph) -> Iterator[str]:
    for step in graph.steps.values():
        yield from _edge_gaps(graph, step)
        yield from _step_gaps(graph, step)


def _edge_gaps(graph: _CountedGraph, step: CountedStep) -> Iterator[str]:
    if step.kind == "union":
        return  # its consumers compare themselves with its inputs
    if step.kind == "dead_letters":
        refused = sum(graph.since_opening(one, "dead_lettered") for one in graph.steps.values())
        read = graph.since_opening(step, "read")
        yield from _difference("all steps -> dead-letters", "refused", refused, read)
    reads = _reads(step) if step.kind in _JOINS else ("read",) * len(step.inputs)
    for name, count in zip(step.inputs, reads, strict=True):
        if graph.steps[name].kind != "batch":  # what a batch emits is defined by its sink
            emitted, read = graph.sent_since_opening(name, step), graph.since_opening(step, count)
            yield from _difference(f"{name} -> {step.name}", "emitted", emitted, read)


def _difference(edge: str, verb: str, sent: int, read: int) -> Iterator[str]:
    if sent != read:
        yield f"{edge}: {sent:,} {verb}, {read:,} read ({_missing(sent - read)})"


def _step_gaps(graph: _CountedGraph, step: CountedStep) -> Iterator[str]:
    in_flight = graph.in_flight(step) or 0
    if in_flight < 0:
        yield f"{step.name}: {-in_flight:,} more left the step than entered it"
    if step.kind in ("flat_map", "batch", "union", "window", "join", "fold"):
        return
    out = "emitted" if "emitted" in COUNTERS[step.kind] else "written"
    read, done = sum(graph.count(step, count) for count in _reads(step)), graph.count(step, out)
    dead, dropped = graph.count(step, "dead_lettered"), graph.count(step, "dropped")
    changes = graph.count(step, "changes")
    if off := read - done - dead - dropped - changes - in_flight:
        counts = f"{done:,} {out} + {dead:,} dead-lettered"
        counts += f" + {changes:,} changes" * (changes > 0)
        counts += f" + {dropped:,} dropped" * (dropped > 0)
        counts += f" + {in_flight:,} in flight" * (in_flight > 0)
        yield f"{step.name}: {read:,} read, {counts} ({_missing(off)})"


def _missing(count: int) -> str:
    return f"{count:,} missing" if count > 0 else f"{-count:,} too many"
