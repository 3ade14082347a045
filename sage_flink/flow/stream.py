"""The fluent builder: a verb a node. The nodes check their arguments; the builder ties them.

>>> from sage_flink.flow.lists import ListSink, ListSource
>>> out = ListSink()
>>> graph = read("in", ListSource(())).flat_map("twice", lambda r: [r.value] * 2).write("out", out)
>>> [node.name for node in graph.nodes]
['in', 'twice', 'out.batch', 'out']
"""

from dataclasses import dataclass

from sage_flink.common.errors import PipelineError
from sage_flink.common.need import need
from sage_flink.flow.graph import (
    ATTEMPTS_MAX,
    ITEMS_MAX,
    LINGER_S,
    PRIORITY,
    TOKENS_MAX,
    Batch,
    Call,
    FlatMap,
    Graph,
    Node,
    Read,
    Union,
    Write,
    finished,
)
from sage_flink.flow.ports import CallSpec, FlinkSink, FlinkSource, Function, Sink, Source


@dataclass(frozen=True, slots=True)
class Stream:
    """The output of the last step of ``nodes``; verbs return a longer stream."""

    nodes: tuple[Node, ...]

    @property
    def name(self) -> str:
        """The name of the step whose output this is."""
        return self.nodes[-1].name

    def flat_map(self, name: str, function: Function) -> "Stream":
        """Each record through ``function``, which yields any number of values or records."""
        return self._then(FlatMap(name, self.name, function))

    def call(
        self,
        name: str,
        spec: CallSpec,
        *,
        capacity: int,
        timeout_s: float,
        attempts_max: int = ATTEMPTS_MAX,
        ordered: bool = False,
        items_max: int = ITEMS_MAX,
        linger_s: float = LINGER_S,
        tokens_max: int = TOKENS_MAX,
        slack_s: float | None = None,
        tenant: str = "",
        priority: str = PRIORITY,
    ) -> "Stream":
        """Each record through the model pool; see :class:`~sage_flink.flow.Call`."""
        return self._then(
            Call(
                name,
                self.name,
                spec,
                capacity=capacity,
                timeout_s=timeout_s,
                attempts_max=attempts_max,
                ordered=ordered,
                items_max=items_max,
                linger_s=linger_s,
                tokens_max=tokens_max,
                slack_s=slack_s,
                tenant=tenant,
                priority=priority,
            )
        )

    def batch(self, name: str, *, items_max: int, bytes_max: int, linger_s: float) -> "Stream":
        """Records gathered for the sink that follows."""
        return self._then(Batch(name, self.name, items_max, bytes_max, linger_s))

    def write(self, name: str, sink: Sink | FlinkSink) -> Graph:
        """Records into ``sink``. Without a batch before it, the sink's own limits make one."""
        end = Write(name, self.name, sink)
        if isinstance(sink, FlinkSink) or isinstance(self.nodes[-1], Batch):
            return Graph((*self.nodes, end))
        own = sink.batch
        gathered = self.batch(
            f"{name}.batch",
            items_max=own.items_max,
            bytes_max=own.bytes_max,
            linger_s=own.linger_s,
        )
        return gathered.write(name, sink)

    def _then(self, node: Node) -> "Stream":
        return Stream((*self.nodes, node))


def read(name: str, source: Source | FlinkSource) -> Stream:
    """The records of ``source`` as a stream."""
    return Stream((Read(name, source),))


def union(name: str, *streams: Stream) -> Stream:
    """The records of all ``streams``, in no order between them."""
    for stream in streams:
        need(isinstance(stream, Stream), f"step {name!r}", "streams", "streams", stream)
    node = Union(name, tuple(stream.name for stream in streams))
    return Stream((*_merged(*(stream.nodes for stream in streams)), node))


def pipeline(*branches: Graph, dead_letters: FlinkSink | Sink | None = None) -> Graph:
    """One graph of several branches; the steps they share stand in it once.

    ``dead_letters`` counts before what the branches say.

    Raises:
        PipelineError: two different steps carry the same name, a branch ends in no sink, or the
            branches send failed records to different places.
    """
    if not branches:
        raise PipelineError("pipeline: needs at least one branch that ends in .write(...), got 0")
    chains = [finished(branch).nodes for branch in branches]
    sink = dead_letters
    for stated in (b.dead_letters for b in branches if dead_letters is None):
        if sink is not None and stated is not None and stated != sink:
            raise PipelineError(
                f"pipeline: the branches send failed records to {sink!r} and to {stated!r}; "
                "give one: pipeline(..., dead_letters=...)"
            )
        sink = stated if sink is None else sink
    return Graph(_merged(*chains), sink)


def _merged(*chains: tuple[Node, ...]) -> tuple[Node, ...]:
    nodes: dict[str, Node] = {}
    for node in (node for chain in chains for node in chain):
        if nodes.setdefault(node.name, node) != node:
            raise PipelineError(
                f"step {node.name!r}: two different steps carry this name; rename one"
            )
    return tuple(nodes.values())
