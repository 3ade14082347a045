"""Several branches as one graph, each shared step once."""

from sage_flink.common.errors import PipelineError
from sage_flink.flow.graph import Graph, Node, require_graph
from sage_flink.flow.ports import FlinkSink, Sink


def pipeline(*branches: Graph, dead_letters: FlinkSink | Sink | None = None) -> Graph:
    """One graph of several branches, each shared step once.

    ``dead_letters`` takes precedence over the sinks of the branches.

    Raises:
        PipelineError: two different steps carry the same name, a branch ends in no sink, or the
            branches send failed records to different places.
    """
    if not branches:
        raise PipelineError("pipeline: needs at least one branch that ends in .write(...), got 0")
    chains = [require_graph(branch).nodes for branch in branches]
    sink = dead_letters
    for other in (branch.dead_letters for branch in branches if dead_letters is None):
        if sink is not None and other is not None and other != sink:
            raise PipelineError(
                f"pipeline: the branches send failed records to {sink!r} and to {other!r}; "
                "give one: pipeline(..., dead_letters=...)"
            )
        sink = other if sink is None else sink
    return Graph(merge_nodes(*chains), sink)


def merge_nodes(*chains: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes of all chains in their order.

    Raises:
        PipelineError: two different steps carry the same name.
    """
    nodes: dict[str, Node] = {}
    for node in (node for chain in chains for node in chain):
        if nodes.setdefault(node.name, node) != node:
            raise PipelineError(
                f"step {node.name!r}: two different steps carry this name; rename one"
            )
    return tuple(nodes.values())
