"""Whole-graph checks: what the builder cannot see from one step.

Each finding names the step, what it needs, and the next action. All are reported at once.
"""

import pickle
from collections.abc import Iterator
from typing import Literal

from sage_flink.common.errors import PipelineError
from sage_flink.flow.graph import Batch, Call, FlatMap, Graph, Node, Read, Write
from sage_flink.flow.ports import FlinkSink, FlinkSource, Sink, Source

Target = Literal["flink", "local"]


def check(graph: Graph, target: Target = "flink") -> Graph:
    """The graph, when ``target`` can run it.

    Raises:
        PipelineError: it cannot; every finding is a line of the message.
    """
    findings = [*_shape(graph), *_fits(graph, target)]
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


def _ends(graph: Graph, node: Node) -> Iterator[str]:
    users = list(graph.users(node.name))
    match node:
        case Write():
            if users:
                yield f"step {users[0].name!r}: reads from {node.name!r}, which is a sink"
        case Batch():
            if [type(user) for user in users] != [Write]:
                yield f"step {node.name!r}: a batch feeds exactly one sink; write it to one"
        case _:
            if not users:
                yield f"step {node.name!r}: nothing reads its output; end the branch with .write"
    if isinstance(node, Read | Write) or not isinstance(node, FlatMap | Call | Batch):
        return
    if isinstance(graph.by_name.get(node.input), Batch):
        yield f"step {node.name!r}: reads from a batch; only a sink can"


def _fits(graph: Graph, target: Target) -> Iterator[str]:
    for node in graph.nodes:
        match node:
            case Read(name, source) if target == "flink" and not isinstance(source, FlinkSource):
                if not isinstance(source, Source):
                    yield f"step {name!r}: {type(source).__name__} cannot be read by Flink"
            case Read(name, source) if target == "local" and not isinstance(source, Source):
                yield (
                    f"step {name!r}: {type(source).__name__} is read by Flink only; "
                    "give the local run other records for this step"
                )
            case Write(name=name, sink=sink) if target == "local" and not isinstance(sink, Sink):
                yield (
                    f"step {name!r}: {type(sink).__name__} is written by Flink only; "
                    "give the local run another sink for this step"
                )
            case FlatMap(name, function=function) if target == "flink":
                yield from _travels(name, function)
    if target == "flink" and not isinstance(graph.dead_letters, FlinkSink):
        yield (
            "pipeline: failed records have nowhere to go; "
            'add .dead_letters_to(kafka("dead-letters"))'
        )


def _travels(step: str, function: object) -> Iterator[str]:
    import cloudpickle  # type: ignore[import-untyped]  # comes with apache-flink

    try:
        cloudpickle.dumps(function)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
        code = getattr(function, "__code__", None)
        place = f" ({code.co_filename}:{code.co_firstlineno})" if code else ""
        yield (
            f"step {step!r}: its function{place} cannot be sent to a worker: {error}; "
            "open clients inside the function's spec, not outside it"
        )
