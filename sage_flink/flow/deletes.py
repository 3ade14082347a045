"""Deletes in a graph: which steps they reach, and whether each stays behind the rows it deletes.

A delete applies to the rows that were written before it. So the steps between the source of a
document and its collection have to keep their input's order, and this module sees to that:

* calls on the way are ordered, whether or not the author says ``ordered=True`` (:func:`in_order`);
* the records of one source reach a collection on one path only: after a second split, or in a union
  of two branches, a delete of one path could remove or overtake rows of the other;
* all steps on the way have one parallelism: between two of them Flink spreads the records;
* with several subtasks the source is one that Flink reads itself, in order within a partition; a
  source in Python is spread over the subtasks, where two versions of a document can change places.

A delete never reaches a sink that does not declare ``supports_deletes``, nor a step that exchanges
records by key; such a graph is refused.

All of this follows from the sources and functions that declare ``emits_deletes``. So no other step
may make a delete, which is checked record by record (:func:`undeclared_delete`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

from sage_flink.flow.graph import Call, FlatMap, Graph, Node, Read, Write
from sage_flink.flow.ports import FlinkSource, emits_deletes, encodes_deletes, supports_deletes
from sage_flink.flow.stateful.broadcasts import BroadcastJoin
from sage_flink.flow.stateful.joins import Join, TemporalJoin
from sage_flink.flow.stateful.keyed_nodes import ChangesOnly, Fold, RateLimit
from sage_flink.flow.stateful.nodes import Deduplicate, Late, Window


def findings(graph: Graph, parallelism: int, of_steps: Mapping[str, int]) -> Iterator[str]:
    """What keeps ``graph`` from applying its deletes correctly, a line each.

    ``of_steps`` has the parallelism of the steps that have not ``parallelism``.
    """
    emitters = _emitters(graph)
    for node in graph.nodes:
        reaching = [one for name in _without_deletes(node) for one in emitters.get(name, ())]
        for emitter in reaching[:1]:
            yield (
                f"step {node.name!r}: takes no deletes, and step {emitter!r} emits them; put "
                "DropDeletes() before it"
            )
        if isinstance(node, Write) and not _applies_deletes(graph, node):
            for emitter in emitters.get(node.name, ())[:1]:
                yield (
                    f"step {node.name!r}: {type(node.sink).__name__} does not support deletes, and "
                    f"step {emitter!r} emits them; put DropDeletes() before it, or write to a sink "
                    "that supports deletes"
                )
    for writes in _places(graph, emitters):
        yield from _two_paths(graph, writes)
        yield from _parallelism_flaws(graph, writes, parallelism, of_steps)
        if parallelism > 1:
            yield from _spread(graph, writes, parallelism)


def in_order(graph: Graph) -> Graph:
    """The graph with ordered calls wherever records go to a sink that receives deletes."""
    ordered: set[str] = set()
    for writes in _places(graph, _emitters(graph)):
        for write in writes:
            ordered |= _upstream(graph, write.name)
    if not ordered:
        return graph
    nodes = (
        replace(node, ordered=True) if isinstance(node, Call) and node.name in ordered else node
        for node in graph.nodes
    )
    return replace(graph, nodes=tuple(nodes))


def receivers(graph: Graph) -> frozenset[str]:
    """The sinks that deletes may reach."""
    emitters = _emitters(graph)
    writes = (node.name for node in graph.nodes if isinstance(node, Write))
    return frozenset(name for name in writes if emitters.get(name))


def undeclared_delete(node: Read | FlatMap | Call) -> str:
    """Why a delete that ``node`` makes is refused; empty where it declares that it makes them."""
    match node:
        case Read(source=source) if not emits_deletes(source):
            made = f"{type(source).__name__} returned a delete"
            return f"{made}; declare emits_deletes = True on it"
        case FlatMap(function=function) if not emits_deletes(function):
            return "the function returned a delete; declare emits_deletes = True on it"
        case Call():
            made = "the call returned a delete"
            return f"{made}; emit it in a flat_map with a function that declares emits_deletes"
        case _:
            return ""


def _without_deletes(node: Node) -> tuple[str, ...]:
    """The inputs of the step from which it takes no deletes; a sink is checked by its own."""
    match node:
        case Window() | Join() | Deduplicate() | ChangesOnly() | RateLimit() | Fold():
            return node.inputs
        case Call() if node.merging is not None:  # exchanges records by key
            return node.inputs
        case TemporalJoin(left=left):
            return (left,)
        case _:
            return ()


def _emitters(graph: Graph) -> dict[str, tuple[str, ...]]:
    """By step, the steps whose deletes its output may hold (a sink: its input)."""
    found: dict[str, tuple[str, ...]] = {}
    for node in graph.nodes:
        passed = tuple(emitter for name in node.inputs for emitter in found.get(name, ()))
        match node:
            case Read(source=spec) | FlatMap(function=spec):
                takes = isinstance(node, FlatMap) and supports_deletes(spec)
                ends_here = takes and not encodes_deletes(spec)
                own = (node.name,) if emits_deletes(spec) else ()
                found[node.name] = own + (() if ends_here and not own else passed)
            case Window() | Join() | TemporalJoin():
                found[node.name] = ()
            case BroadcastJoin(left=left):
                found[node.name] = found.get(left, ())
            case Late(input=step) if isinstance(join := graph.by_name[step], TemporalJoin):
                found[node.name] = found.get(join.right, ())
            case Fold(function=function):
                found[node.name] = (node.name,) if emits_deletes(function) else ()
            case _:
                found[node.name] = passed
    return found


def _places(graph: Graph, emitters: dict[str, tuple[str, ...]]) -> list[list[Write]]:
    """The sinks, those that write the same rows together, of the places that deletes reach."""
    places: dict[object, list[Write]] = {}
    for node in graph.nodes:
        if isinstance(node, Write) and _applies_deletes(graph, node):
            places.setdefault(getattr(node.sink, "place", id(node.sink)), []).append(node)
    return [writes for writes in places.values() if any(emitters.get(w.name) for w in writes)]


def _applies_deletes(graph: Graph, write: Write) -> bool:
    """Whether the sink applies deletes, or passes on the messages that a format makes of them."""
    before = graph.by_name.get(write.input)
    is_encoded = isinstance(before, FlatMap) and encodes_deletes(before.function)
    return is_encoded or supports_deletes(write.sink)


def _two_paths(graph: Graph, writes: list[Write]) -> Iterator[str]:
    for read in (node for node in graph.nodes if isinstance(node, Read)):
        ends = {write.name for write in writes}
        paths = list(islice(_paths(graph, read, ends), 2))
        if len(paths) == 2:
            one, other = (" > ".join(path) for path in paths)
            yield (
                f"step {writes[-1].name!r}: the records of {read.name!r} reach its rows on two "
                f"paths, {one} and {other}, so a delete on one could remove or overtake rows of "
                "the other; write one of them to another collection"
            )


def _spread(graph: Graph, writes: list[Write], parallelism: int) -> Iterator[str]:
    for write in writes:
        upstream = _upstream(graph, write.name)
        for node in graph.nodes:
            read_here = isinstance(node, Read) and not isinstance(node.source, FlinkSource)
            if read_here and node.name in upstream:
                yield (
                    f"step {node.name!r}: its records are spread over {parallelism} subtasks, so a "
                    f"delete could overtake rows on the way to step {write.name!r}; submit it with "
                    "parallelism 1, or read from a source of Flink such as kafka(...)"
                )


def _parallelism_flaws(
    graph: Graph, writes: list[Write], parallelism: int, of_steps: Mapping[str, int]
) -> Iterator[str]:
    """Where records change subtasks without a key on their way to a sink with deletes."""
    for write in writes:
        upstream = _upstream(graph, write.name)
        for node in graph.nodes:
            count = of_steps.get(node.name, parallelism)
            before = [of_steps.get(name, parallelism) for name in node.inputs]
            if node.name in upstream and any(one != count for one in before):
                yield (
                    f"step {node.name!r}: has {count} subtasks and the step before it {before[0]}, "
                    f"so a delete could overtake rows on the way to step {write.name!r}; give all "
                    "steps on that way one parallelism"
                )


def _paths(graph: Graph, node: Node, ends: set[str]) -> Iterator[tuple[str, ...]]:
    if node.name in ends:
        yield (node.name,)
    for user in graph.users(node.name):
        for path in _paths(graph, user, ends):
            yield (node.name, *path)


def _upstream(graph: Graph, name: str) -> set[str]:
    """The steps whose records reach the step ``name``."""
    found = {name}
    for node in reversed(graph.nodes):
        if node.name in found:
            found.update(node.inputs)
    return found
