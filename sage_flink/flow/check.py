"""Checks of a whole graph for a target, beyond those that each node makes of its own fields.

Each finding names the step, what it needs, and the next action. One error reports all findings.
"""

import pickle
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, assert_never

from sage_flink.common.errors import PipelineError
from sage_flink.common.records import Record
from sage_flink.flow import deletes, snapshots
from sage_flink.flow.author_code import lost_state, place_of, returned_type
from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.formats import with_formats
from sage_flink.flow.functions import Filter, Map
from sage_flink.flow.graph import (
    REPLAYED,
    Batch,
    Call,
    FlatMap,
    Graph,
    Node,
    Read,
    Union,
    Write,
    require_graph,
)
from sage_flink.flow.lifecycle import open_flaws
from sage_flink.flow.ports import FlinkSink, SharedSink, Sink, Source
from sage_flink.flow.stateful.broadcasts import BroadcastJoin, timed_inputs
from sage_flink.flow.stateful.joins import Join, TemporalJoin, TimeJoin
from sage_flink.flow.stateful.keyed_nodes import ChangesOnly, Fold, RateLimit
from sage_flink.flow.stateful.keys import KeyOf
from sage_flink.flow.stateful.nodes import (
    Deduplicate,
    EventTime,
    KeyBy,
    Late,
    ProcessingTime,
    TimeNode,
    Window,
)
from sage_flink.flow.stateful.sketches import sketches_flaw

Target = Literal["flink", "local"]
NO_STEPS: Mapping[str, int] = {}
#: Annotations that contradict a flat_map, where such a value is rejected, and those that contradict
#: a filter. Text, numbers and lists are accepted there: an empty one is false.
_SINGLE = (str, bytes, Mapping, Record, bool, int, float, type(None))
_NO_TRUTH = (Mapping, Record, Iterator, type(None))


def check(
    graph: Graph,
    target: Target = "flink",
    *,
    parallelism: int = 1,
    of_steps: Mapping[str, int] = NO_STEPS,
) -> Graph:
    """The graph, when ``target`` can run it with ``parallelism`` subtasks of each step.

    ``of_steps`` has the parallelism of single steps, where it is another.

    A source or sink with a format is two steps in it, as :mod:`sage_flink.flow.formats` says.

    Raises:
        PipelineError: it cannot; every finding is a line of the message.
    """
    graph = with_formats(require_graph(graph))
    fits = _fits_flink if target == "flink" else _fits_local
    findings = [
        *_shape(graph),
        *(line for node in graph.nodes for line in fits(graph, node)),
        *(line for node in graph.nodes for line in (*_opens(node), *_returns(node))),
    ]
    if target == "flink" and graph.dead_letters is None:
        findings.append(
            "pipeline: failed records have nowhere to go; add "
            '.dead_letters_to(kafka("{job}.dead-letters")), a topic of this job alone'
        )
    findings += _dead_letters_apart(graph)
    if not findings:
        findings += deletes.findings(graph, parallelism, of_steps)
        findings += snapshots.findings(graph, parallelism, of_steps)
    if findings:
        raise PipelineError("\n".join(findings))
    return graph


def _shape(graph: Graph) -> Iterator[str]:
    seen: set[str] = set()
    if not graph.nodes:
        yield "pipeline: has no steps; start with sage.flow.read(...)"
    for node in graph.nodes:
        if node.name in seen:
            yield f"step {node.name!r}: the name is used twice; rename one"
        for name in node.inputs:
            if name not in seen:
                yield f"step {node.name!r}: reads from {name!r}, which is not an earlier step"
        seen.add(node.name)
        yield from _ends(graph, node)
        if _needs_event_time(node) and not _has_event_time(graph, node):
            verbs = ".event_time(...) or .processing_time(...)"
            yield f"step {node.name!r}: needs event time; put {verbs} before it"


def _dead_letters_apart(graph: Graph) -> Iterator[str]:
    """Steps that use the topic of the dead letters, which only a replay may write."""
    place = _places(graph.dead_letters)
    for node in graph.nodes:
        if isinstance(node, Read | Write) and node.name != REPLAYED:
            verb, end = ("reads", node.source) if isinstance(node, Read) else ("writes", node.sink)
            if place & _places(end):
                yield (
                    f"step {node.name!r}: {verb} the topic of the dead letters; "
                    'give them one of their own: .dead_letters_to(kafka("{job}.dead-letters"))'
                )


def _places(end: object) -> set[tuple[object, str]]:
    if not isinstance(end, SharedSink):
        return set()
    return {(end.topics_sink(), topic) for topic in end.topic.split(",")}


def _ends(graph: Graph, node: Node) -> Iterator[str]:
    users = list(graph.users(node.name))
    match node:
        case Write():
            if users:
                yield f"step {users[0].name!r}: reads from {node.name!r}, which is a sink"
        case Batch():
            if [type(user) for user in users] != [Write]:
                yield f"step {node.name!r}: a batch feeds exactly one sink; write it to one"
        case Late():
            yield from _late_flaws(graph, node)
            if not users:
                yield f"step {node.name!r}: nothing reads its output; end the branch with .write"
        case Window() | Join() | TemporalJoin():
            if all(isinstance(user, Late) for user in users):
                yield f"step {node.name!r}: nothing reads its output; end the branch with .write"
        case (
            Read()
            | FlatMap()
            | MapBatches()
            | Call()
            | Union()
            | EventTime()
            | ProcessingTime()
            | KeyBy()
            | Deduplicate()
            | ChangesOnly()
            | RateLimit()
            | Fold()
            | BroadcastJoin()
        ):
            if not users:
                yield f"step {node.name!r}: nothing reads its output; end the branch with .write"
        case _:
            assert_never(node)


def _late_flaws(graph: Graph, node: Late) -> Iterator[str]:
    match graph.by_name.get(node.input):
        case Window(windows=kind, is_timed=False):
            kind_name = type(kind).__name__
            yield f"step {node.name!r}: no record is late for {kind_name}(...) windows"
        case Window() | Join() | TemporalJoin():
            pass
        case _:
            yield f"step {node.name!r}: only a window step or a join has late records"


def _fits_local(graph: Graph, node: Node) -> Iterator[str]:
    match node:
        case Read(name, source) if not isinstance(source, Source):
            yield (
                f"step {name!r}: {type(source).__name__} is read by Flink only; "
                "give the local run other records for this step"
            )
        case Write(name=name, sink=sink) if not isinstance(sink, Sink):
            yield (
                f"step {name!r}: {type(sink).__name__} is written by Flink only; "
                "give the local run another sink for this step"
            )
        case Window(name=name) if node.is_approximate and (flaw := sketches_flaw()):
            yield f"step {name!r}: {flaw}"
        case _:
            return


def _fits_flink(graph: Graph, node: Node) -> Iterator[str]:
    match node:
        case FlatMap() | MapBatches() | Fold():
            yield from _travels(node.name, "function", node.function)
            yield from _keeps_no_state(node.name, "function", node.function)
        case Call():
            for part in (f"{node.name}.request", f"{node.name}.answer"):
                if part in graph.by_name:
                    yield f"step {part!r}: is a part of the call {node.name!r}; rename one"
            yield from _travels(node.name, "call", node.spec)
            for method in (node.spec.request, node.spec.answer):
                yield from _keeps_no_state(node.name, "call", method)
        case Write(sink=FlinkSink()):
            if isinstance(graph.by_name.get(node.input), Batch):
                kind = type(node.sink).__name__
                yield f"step {node.name!r}: {kind} takes single records; leave out the batch"
        case Write():
            if not isinstance(graph.by_name.get(node.input), Batch):
                yield f"step {node.name!r}: needs a batch before it; add one with .batch(...)"
            yield from _travels(node.name, "sink", node.sink)
        case _:
            return


def _needs_event_time(node: Node) -> bool:
    return isinstance(node, TimeJoin | RateLimit) or (
        isinstance(node, Window) and node.needs_event_time
    )


def _has_event_time(graph: Graph, node: Node) -> bool:
    """Whether every path to the step passes one that makes event time, and keeps it."""
    timed: set[str] = set()
    for one in graph.nodes:  # inputs are before their users, or there is a finding already
        is_timed = one.inputs and timed.issuperset(timed_inputs(one))
        if isinstance(one, TimeNode) or (is_timed and not isinstance(one, MapBatches)):
            timed.add(one.name)
    return timed.issuperset(node.inputs)


def _opens(node: Node) -> Iterator[str]:
    if isinstance(node, FlatMap | MapBatches | Fold | Call):
        operator = node.spec if isinstance(node, Call) else node.function
        yield from (f"step {node.name!r}: {flaw}" for flaw in open_flaws(operator))


def _returns(node: Node) -> Iterator[str]:
    """A finding where the function's return annotation contradicts the step's verb."""
    if not isinstance(node, FlatMap) or (returned := returned_type(node.function)) is None:
        return
    match node.function:
        case Filter() if returned is Iterable or issubclass(returned, _NO_TRUTH):
            advice = "filter keeps the records for which it returns true; return a bool, or use map"
        case Filter() | Map() | KeyOf():
            return
        case _ if issubclass(returned, _SINGLE):
            verb = "filter" if returned is bool else "map"
            advice = f"flat_map takes many values; return a list, yield, or use {verb}"
        case _:
            return
    kind = "None" if returned is type(None) else returned.__name__
    yield f"step {node.name!r}: its function{place_of(node.function)} returns {kind}: {advice}"


def _travels(step: str, what: str, thing: object) -> Iterator[str]:
    import cloudpickle  # type: ignore[import-untyped]  # installed with apache-flink

    try:
        cloudpickle.dumps(thing)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        yield (
            f"step {step!r}: its {what}{place_of(thing)} cannot be sent to a worker: {error}; "
            "create clients, files and locks in open(context), which runs on the worker"
        )


def _keeps_no_state(step: str, what: str, function: object) -> Iterator[str]:
    for state in lost_state(function):
        yield (
            f"step {step!r}: its {what}{place_of(function)} keeps state that a restart loses: "
            f"{state}; keep the state of a key with .fold(name, function, initial=...), create "
            "what may start fresh in open(context), and keep other state in a store"
        )
