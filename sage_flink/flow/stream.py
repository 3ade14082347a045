"""The fluent builder: each verb checks its arguments where the user wrote them.

>>> from sage_flink.flow.memory import Collected, Given
>>> out = Collected()
>>> graph = read("in", Given(())).flat_map("twice", lambda r: [r.value] * 2).write("out", out)
>>> [node.name for node in graph.nodes]
['in', 'twice', 'out.batch', 'out']
"""

from dataclasses import dataclass
from typing import Any

from sage_flink.common.errors import PipelineError
from sage_flink.flow.graph import Batch, Call, FlatMap, Graph, Node, Read, Union, Write
from sage_flink.flow.ports import (
    BatchLimits,
    CallSpec,
    FlinkSink,
    FlinkSource,
    Function,
    Sink,
    Source,
)


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
        _named(name)
        _need(callable(function), name, "function", "a callable taking a Record", function)
        return self._then(FlatMap(name, self.name, function))

    def call(
        self,
        name: str,
        spec: CallSpec,
        *,
        capacity: int,
        timeout_s: float,
        attempts_max: int = 4,
        ordered: bool = False,
        items_max: int = 32,
        linger_s: float = 0.005,
    ) -> "Stream":
        """Each record through the model pool; at most ``capacity`` in flight a subtask."""
        _named(name)
        _need(isinstance(spec, CallSpec), name, "spec", "a call such as sage.embed(...)", spec)
        _at_least(name, "capacity", capacity, 1)
        _at_least(name, "attempts_max", attempts_max, 1)
        _at_least(name, "items_max", items_max, 1)
        _need(timeout_s > 0, name, "timeout_s", "more than 0 seconds", timeout_s)
        _need(linger_s >= 0, name, "linger_s", "0 seconds or more", linger_s)
        return self._then(
            Call(
                name,
                self.name,
                spec,
                capacity,
                timeout_s,
                attempts_max,
                ordered,
                items_max,
                linger_s,
            )
        )

    def batch(self, name: str, *, items_max: int, bytes_max: int, linger_s: float) -> "Stream":
        """Records gathered for the sink that follows."""
        _named(name)
        _at_least(name, "items_max", items_max, 1)
        _at_least(name, "bytes_max", bytes_max, 1)
        _need(linger_s > 0, name, "linger_s", "more than 0 seconds", linger_s)
        return self._then(Batch(name, self.name, items_max, bytes_max, linger_s))

    def write(self, name: str, sink: Sink | FlinkSink) -> Graph:
        """Records into ``sink``. Without a batch before it, the sink's own limits make one."""
        _named(name)
        if isinstance(sink, FlinkSink):
            return Graph((*self.nodes, Write(name, self.name, sink)))
        _need(isinstance(sink, Sink), name, "sink", "a sink with writer() or flink_sink()", sink)
        if isinstance(self.nodes[-1], Batch):
            return Graph((*self.nodes, Write(name, self.name, sink)))
        limits: BatchLimits = sink.batch
        gathered = self.batch(
            f"{name}.batch",
            items_max=limits.items_max,
            bytes_max=limits.bytes_max,
            linger_s=limits.linger_s,
        )
        return gathered.write(name, sink)

    def _then(self, node: Node) -> "Stream":
        return Stream((*self.nodes, node))


def read(name: str, source: Source | FlinkSource) -> Stream:
    """The records of ``source`` as a stream."""
    _named(name)
    known = isinstance(source, Source | FlinkSource)
    _need(known, name, "source", "a source with records() or flink_source()", source)
    return Stream((Read(name, source),))


def union(name: str, *streams: Stream) -> Stream:
    """The records of all ``streams``, in no order between them."""
    _named(name)
    _need(len(streams) >= 2, name, "streams", "two streams or more", len(streams))
    merged = _merged(*(s.nodes for s in streams))
    return Stream((*merged, Union(name, tuple(s.name for s in streams))))


def pipeline(*branches: Graph, dead_letters: FlinkSink | Sink | None = None) -> Graph:
    """One graph of several branches; the steps they share stand in it once.

    Raises:
        PipelineError: two different steps carry the same name.
    """
    if not branches:
        raise PipelineError("pipeline: needs at least one branch that ends in .write(...), got 0")
    stated = [b.dead_letters for b in branches if b.dead_letters is not None]
    sink = dead_letters or (stated[0] if stated else None)
    return Graph(_merged(*(b.nodes for b in branches)), sink)


def _merged(*chains: tuple[Node, ...]) -> tuple[Node, ...]:
    nodes: dict[str, Node] = {}
    for node in (node for chain in chains for node in chain):
        if nodes.setdefault(node.name, node) != node:
            raise PipelineError(
                f"step {node.name!r}: two different steps carry this name; rename one"
            )
    return tuple(nodes.values())


def _named(name: Any) -> None:
    if not isinstance(name, str) or not name.strip() or len(name) > 100:
        raise PipelineError(f"step name: must be 1 to 100 characters of text, got {name!r}")


def _at_least(step: str, field: str, got: Any, least: int) -> None:
    _need(isinstance(got, int) and got >= least, step, field, f"at least {least}", got)


def _need(condition: bool, step: str, field: str, required: str, got: Any) -> None:
    if not condition:
        raise PipelineError(f"step {step!r}: {field} must be {required}, got {got!r}")
