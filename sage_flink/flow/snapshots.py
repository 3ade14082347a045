"""Sinks with snapshots in a graph: each is written by one subtask of one step.

Its rows are those of completed checkpoints. One writer can undo what a restart takes back, and say
that a checkpoint is complete, without an agreement among several.
"""

from collections.abc import Iterator, Mapping

from sage_flink.flow.graph import Graph, Write
from sage_flink.flow.ports import has_snapshots


def findings(graph: Graph, parallelism: int, of_steps: Mapping[str, int]) -> Iterator[str]:
    """What keeps ``graph`` from writing its snapshots, a line each; arguments as of ``deletes``."""
    steps: dict[object, str] = {}
    for node in graph.nodes:
        if not isinstance(node, Write) or not has_snapshots(node.sink):
            continue
        if (count := of_steps.get(node.name, parallelism)) > 1:
            yield (
                f"step {node.name!r}: a collection with snapshots is written by one subtask, got "
                f"parallelism {count}; give the step StepOptions(parallelism=1), and if deletes "
                "reach it all steps before it, or make the collection without snapshots"
            )
        place = getattr(node.sink, "place", id(node.sink))
        if (other := steps.setdefault(place, node.name)) != node.name:
            yield (
                f"step {node.name!r}: writes the collection of step {other!r}, and one with "
                "snapshots is written by one step; put .union before one write, or make the "
                "collection without snapshots"
            )
