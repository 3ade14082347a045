"""The replay of dead letters: a graph and dead letters -> the graph that processes them again.

Each record enters at the step that refused it, as it reached that step: same id, value, origin,
time, key, headers and kind. Only the steps behind it are run, under the same names, so ids of
children and requests are those of the first run. A second branch writes a replay mark for each dead
letter into their topic. Submitted ``at_once``, output, new dead letters and marks are one Kafka
transaction, so an interrupted replay has happened completely or not at all. Other sinks are
idempotent by id, and may have some of the rows before a second attempt.

Considered instead of the transaction, and rejected: ids that are idempotent, with the offset that a
consumer group commits. Offsets cannot record a choice by step, reason or id; and Flink commits the
offsets and each Kafka sink apart, so a job that is cancelled between two commits loses records or
writes them twice into topics, which do not drop a second record of one id.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain, count
from typing import NamedTuple

from sage_flink.common.dead_letters import DeadLetter, replay_mark
from sage_flink.common.errors import PipelineError, Rejected
from sage_flink.common.records import Record, encode
from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.formats import with_formats
from sage_flink.flow.graph import REPLAYED, Batch, Call, FlatMap, Graph, Node, Read, Union, Write
from sage_flink.flow.lists import ListSource
from sage_flink.flow.ports import FlinkSink, SharedSink
from sage_flink.flow.stateful.broadcasts import BroadcastJoin
from sage_flink.flow.stateful.joins import TimeJoin
from sage_flink.flow.stateful.keyed_nodes import ChangesOnly, Fold, RateLimit
from sage_flink.flow.stateful.nodes import EventTime, KeyBy, Window

#: A replay is a job of its own, so these begin without the state of the job.
OF_STATE = BroadcastJoin | ChangesOnly | RateLimit | Fold
_STATEFUL = Window | TimeJoin | OF_STATE


class Skipped(NamedTuple):
    """A dead letter that cannot be replayed, and why."""

    letter: DeadLetter
    reason: str


class Replay(NamedTuple):
    """The graph that replays ``letters``, None without any; ``skipped`` cannot be replayed."""

    graph: Graph | None
    letters: tuple[DeadLetter, ...]
    skipped: tuple[Skipped, ...]


def replay(graph: Graph, letters: Iterable[DeadLetter]) -> Replay:
    """The graph that processes ``letters`` where ``graph`` failed on them. Pure; starts nothing.

    Skipped are dead letters whose step is no longer in ``graph``, or whose record cannot be
    restored.

    Raises:
        PipelineError: ``graph`` has no topic for dead letters, so they could not be marked.
    """
    if not isinstance(graph.dead_letters, SharedSink):
        raise PipelineError(
            "pipeline: a replay marks dead letters in their topic, and it has none; "
            'add .dead_letters_to(kafka("{job}.dead-letters"))'
        )
    graph = with_formats(graph)
    entering: dict[str, list[Record]] = {}
    chosen: list[DeadLetter] = []
    skipped: list[Skipped] = []
    for letter in letters:
        try:
            entry, record = _entry(graph, letter.step), _record(letter)
        except Rejected as refusal:
            skipped.append(Skipped(letter, str(refusal)))
        else:
            entering.setdefault(entry, []).append(record)
            chosen.append(letter)
    if not chosen:
        return Replay(None, (), tuple(skipped))
    nodes = (*_behind(graph, entering), *_marks(chosen, graph.dead_letters))
    return Replay(Graph(nodes, graph.dead_letters), tuple(chosen), tuple(skipped))


def one_transaction(graph: Graph) -> None:
    """Nothing when all native sinks of ``graph``, dead letters too, can share a transaction.

    Raises:
        PipelineError: they cannot; the message names the step.
    """
    for node in graph.nodes:
        if not isinstance(node, Write) or not isinstance(node.sink, FlinkSink):
            continue
        if not _together(node.sink, graph.dead_letters):
            raise PipelineError(
                f"step {node.name!r}: its sink and the dead letters must be topics of one Kafka, "
                "to be written in one transaction; "
                f"got {node.sink!r:.100} and {graph.dead_letters!r:.100}"
            )


def _together(one: object, other: object) -> bool:
    if not isinstance(one, SharedSink) or not isinstance(other, SharedSink):
        return False
    return one.topics_sink() == other.topics_sink()


def _state_behind(graph: Graph, step: str) -> list[Node]:
    """The steps with state that the records of ``step`` reach, itself included."""
    reached = {step}
    for node in graph.nodes:
        if reached & {*node.inputs}:
            reached.add(node.name)
    return [n for n in graph.nodes if n.name in reached and isinstance(n, _STATEFUL)]


def _entry(graph: Graph, step: str) -> str:
    """The step at which what ``step`` refused enters: itself, or the batch before a sink."""
    for node in _state_behind(graph, step)[:1]:
        if isinstance(node, Window):
            raise Rejected(
                f"behind step {step!r} the windows of {node.name!r} would be replaced by ones of "
                "this record alone; feed it to the source again while its windows are open "
                "(lateness_s)"
            )
        if isinstance(node, TimeJoin):
            raise Rejected(
                f"behind step {step!r} the join {node.name!r} would have no record for this one to "
                "meet; feed it to the source again while it is not late"
            )
        raise Rejected(
            f"behind step {step!r} the step {node.name!r} would not have the state that the job "
            "has; feed it to the source again"
        )
    match graph.by_name.get(step):
        case FlatMap() | MapBatches() | Call() | EventTime() | KeyBy():
            return step
        case Write(input=before, sink=sink) if not isinstance(sink, FlinkSink):
            return before if isinstance(graph.by_name[before], Batch) else step
        case None:
            raise Rejected(f"step {step!r} is not in the pipeline any more")
        case node:
            raise Rejected(f"step {step!r} is a {type(node).__name__} now and refuses nothing")


def _record(letter: DeadLetter) -> Record:
    record = letter.record()
    try:
        encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Rejected(f"its value cannot travel: {error}") from error
    return record


def _behind(graph: Graph, entering: Mapping[str, Sequence[Record]]) -> list[Node]:
    """What lies behind the steps at which records enter, each fed by them and by what is kept."""
    nodes: list[Node] = []
    source: dict[str, str] = {}  # kept step -> the step whose output replaces its own
    for node in graph.nodes:
        inputs = tuple(source[name] for name in node.inputs if name in source)
        taken = {*graph.by_name, *(made.name for made in nodes)}
        if node.name in entering:
            name = _free_name(node.name, "letters", taken)
            nodes.append(Read(name, ListSource(tuple(entering[node.name]))))
            inputs = (*inputs, name)
        if not inputs:
            continue
        source[node.name] = node.name
        if isinstance(node, Union) and len(inputs) == 1:
            source[node.name] = inputs[0]
        else:
            nodes += _with_inputs(node, inputs, _free_name(node.name, "input", taken))
    return nodes


def _free_name(step: str, part: str, taken: Container[str]) -> str:
    """A name for a step that only the replay has, next to ``step``."""
    name = f"{step[:80]}.{part}"
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(free for free in names if free not in taken)


def _with_inputs(node: Node, inputs: tuple[str, ...], union: str) -> list[Node]:
    """The step reading from ``inputs``, through a ``union`` where it can read from one only."""
    if isinstance(node, Union):
        return [replace(node, inputs=inputs)]
    assert not isinstance(
        node, Read | TimeJoin | BroadcastJoin
    )  # nothing is replayed through a join
    if len(inputs) == 1:
        return [replace(node, input=inputs[0])]
    both = Union(union, inputs)
    return [both, replace(node, input=both.name)]


def _marks(letters: Sequence[DeadLetter], topic: FlinkSink) -> tuple[Node, Node]:
    marks = tuple(
        replay_mark(letter, position)
        for letter in letters
        for position in (letter.position, *letter.also)
    )
    read = Read(f"{REPLAYED}.read", ListSource(marks))
    return read, Write(REPLAYED, read.name, topic)
