"""Dead letters back into the pipeline: a graph and letters -> the graph that replays them.

Each record enters at the step that refused it, as it came to that step: same id, value, origin,
time, key and headers. Only what lies behind that step is run, under the same step names, so ids of
children and requests are those of the first run. Beside it a branch writes a marker for each letter
into the dead-letter topic. Submitted ``at_once``, output, new letters and markers are one Kafka
transaction, so a replay that is cut off anywhere has happened as a whole or not at all. Other sinks
are idempotent by id, and may have some of the rows before a second try.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from sage_flink.common.errors import PipelineError, Rejected
from sage_flink.common.letters import Posted, marker_message
from sage_flink.common.records import Record, encode
from sage_flink.flow.graph import REPLAYED, Batch, Call, FlatMap, Graph, Node, Read, Union, Write
from sage_flink.flow.lists import ListSource
from sage_flink.flow.ports import FlinkSink, SharedSink


class Left(NamedTuple):
    """A letter that a replay leaves, and why."""

    posted: Posted
    why: str


class Replay(NamedTuple):
    """The graph that replays ``taken``; ``left`` cannot be. ``graph`` is None if none can."""

    graph: Graph | None
    taken: tuple[Posted, ...]
    left: tuple[Left, ...]


def replay(graph: Graph, letters: Iterable[Posted]) -> Replay:
    """The graph that takes up ``letters`` where ``graph`` failed on them. Pure; starts nothing.

    A letter is left whose step is not in ``graph`` any more, or whose record cannot be made again.

    Raises:
        PipelineError: ``graph`` has no topic for dead letters, so nothing could be marked.
    """
    if not isinstance(graph.dead_letters, SharedSink):
        raise PipelineError(
            "pipeline: a replay marks letters in their topic, and it has none; "
            'add .dead_letters_to(kafka("<job>.dead-letters"))'
        )
    entering: dict[str, list[Record]] = {}
    taken: list[Posted] = []
    left: list[Left] = []
    for posted in letters:
        try:
            entry, record = _entry(graph, posted.letter.step), _record(posted)
        except Rejected as verdict:
            left.append(Left(posted, str(verdict)))
        else:
            entering.setdefault(entry, []).append(record)
            taken.append(posted)
    if not taken:
        return Replay(None, (), tuple(left))
    nodes = (*_behind(graph, entering), *_markers(taken, graph.dead_letters))
    return Replay(Graph(nodes, graph.dead_letters), tuple(taken), tuple(left))


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
    return one.shared() == other.shared()


def _entry(graph: Graph, step: str) -> str:
    """The step at which what ``step`` refused comes in: itself, or the batch before a sink."""
    match graph.by_name.get(step):
        case FlatMap() | Call():
            return step
        case Write(input=before, sink=sink) if not isinstance(sink, FlinkSink):
            return before if isinstance(graph.by_name[before], Batch) else step
        case None:
            raise Rejected(f"step {step!r} is not in the pipeline any more")
        case node:
            raise Rejected(f"step {step!r} is a {type(node).__name__} now and refuses nothing")


def _record(posted: Posted) -> Record:
    record = posted.letter.record()
    try:
        encode(record)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Rejected(f"its value cannot travel: {error}") from error
    return record


def _behind(graph: Graph, entering: Mapping[str, Sequence[Record]]) -> list[Node]:
    """What lies behind the steps at which records enter, each fed by them and by what is kept."""
    nodes: list[Node] = []
    source: dict[str, str] = {}  # kept step -> the step whose output stands for its own
    for node in graph.nodes:
        inputs = tuple(source[name] for name in node.inputs if name in source)
        if node.name in entering:
            letters = Read(f"{node.name}.letters", ListSource(tuple(entering[node.name])))
            nodes.append(letters)
            inputs = (*inputs, letters.name)
        if not inputs:
            continue
        source[node.name] = node.name
        if isinstance(node, Union) and len(inputs) == 1:
            source[node.name] = inputs[0]
        else:
            nodes += _fed(node, inputs)
    return nodes


def _fed(node: Node, inputs: tuple[str, ...]) -> list[Node]:
    """The step reading from ``inputs``, with a union before it where it can read from one only."""
    if isinstance(node, Union):
        return [replace(node, inputs=inputs)]
    assert not isinstance(node, Read)
    if len(inputs) == 1:
        return [replace(node, input=inputs[0])]
    both = Union(f"{node.name}.input", inputs)
    return [both, replace(node, input=both.name)]


def _markers(taken: Sequence[Posted], topic: FlinkSink) -> tuple[Node, Node]:
    markers = tuple(
        marker_message(posted, position)
        for posted in taken
        for position in (posted.position, *posted.also)
    )
    read = Read(f"{REPLAYED}.read", ListSource(markers))
    return read, Write(REPLAYED, read.name, topic)
