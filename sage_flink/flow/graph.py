"""The pipeline as a value: frozen nodes that name their inputs, without any running code.

Both targets, ``check``, ``explain`` and the tests read this one form. A node checks its own fields,
whether the builder, YAML or Python makes it. A node is added only when composition cannot say it;
everything else is a function for ``flat_map`` in ``sage_flink.operators``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from typing_extensions import get_protocol_members

from sage_flink.common.errors import PipelineError
from sage_flink.common.validation import require, require_whole_number
from sage_flink.flow.author_code import asynchronous, place_of
from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.call_options import (
    Admission,
    Batching,
    Merging,
    Retry,
    is_above_zero,
    require_call_limits,
)
from sage_flink.flow.call_ports import CallSpec
from sage_flink.flow.functions import unwrap
from sage_flink.flow.ports import FlinkSink, FlinkSource, Function, JobScoped, Sink, Source
from sage_flink.flow.stateful.broadcasts import BroadcastJoin
from sage_flink.flow.stateful.joins import TimeJoin
from sage_flink.flow.stateful.keyed_nodes import ChangesOnly, Fold, RateLimit
from sage_flink.flow.stateful.nodes import Deduplicate, KeyBy, Late, TimeNode, Window
from sage_flink.flow.step_names import DEAD_LETTERS as DEAD_LETTERS
from sage_flink.flow.step_names import check_name

#: A batch is one element: its bytes are copied from task to task at once.
BATCH_BYTES_MAX = 256 << 20
#: The step of a replay that marks the dead letters it took, in the topic that holds them.
REPLAYED = "replayed-letters"


@dataclass(frozen=True, slots=True)
class Read:
    """Records of a source."""

    name: str
    source: Source | FlinkSource

    def __post_init__(self) -> None:
        known = _is(self.source, Source, FlinkSource)
        required = "a source with records() or flink_source()"
        _check_spec(self.name, "source", known, required, self.source)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Empty: a source has no input."""
        return ()


@dataclass(frozen=True, slots=True)
class FlatMap:
    """Each record through a function: one in, any number out."""

    name: str
    input: str
    function: Function

    def __post_init__(self) -> None:
        function = unwrap(self.function)
        known = callable(function) and not isinstance(function, type)
        _check_spec(self.name, "function", known, "a callable taking a Record", function)
        _check_plain(self.name, "function", function)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Call:
    """Each record through the model pool, at most ``capacity`` calls in flight a subtask.

    ``timeout_s`` is a record's whole budget, over all attempts that ``retry`` allows. Results leave
    in the order of the records where ``ordered`` is true. ``batching`` is read by calls that embed.
    With ``merging`` near-equal requests share one answer. With ``cache_ttl_s`` the pool may give an
    answer of its cache that is at most this many seconds old: vectors by text, so that what did not
    change is not embedded again; other answers by the whole request.
    """

    name: str
    input: str
    spec: CallSpec
    capacity: int
    timeout_s: float
    ordered: bool = False
    retry: Retry = field(default_factory=Retry)
    batching: Batching = field(default_factory=Batching)
    admission: Admission = field(default_factory=Admission)
    merging: Merging | None = None
    cache_ttl_s: int = 0

    def __post_init__(self) -> None:
        known = _is(self.spec, CallSpec)
        _check_spec(self.name, "spec", known, "a call such as sage.embed(...)", self.spec)
        _check_plain(self.name, "request", self.spec.request)
        _check_plain(self.name, "answer", self.spec.answer)
        step = f"step {self.name!r}"
        require_call_limits(step, self.capacity, self.timeout_s, self.cache_ttl_s)
        for name, kind in (("retry", Retry), ("batching", Batching), ("admission", Admission)):
            got = getattr(self, name)
            require(isinstance(got, kind), step, name, f"{kind.__name__}(...)", got)
        merges = isinstance(self.merging, Merging) and self.spec.mode != "embed"
        required = "Merging(...) of a call that does not embed, or None"
        require(merges or self.merging is None, step, "merging", required, self.merging)
        unordered = "False with merging, which sends requests to the subtask of their words"
        require(not (self.ordered and merges), step, "ordered", unordered, self.ordered)

    @property
    def slack_s(self) -> float:
        """Seconds from a record's arrival at the call to its deadline."""
        return self.timeout_s if self.admission.slack_s is None else self.admission.slack_s

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Batch:
    """Micro-batches for a sink, complete by count, bytes, or the age of the oldest record.

    The in-process target completes batches by count alone.
    """

    name: str
    input: str
    items_max: int
    bytes_max: int
    linger_s: float

    def __post_init__(self) -> None:
        check_name(self.name)
        step = f"step {self.name!r}"
        require_whole_number(step, "items_max", self.items_max)
        require_whole_number(step, "bytes_max", self.bytes_max)
        fits = self.bytes_max <= BATCH_BYTES_MAX
        require(fits, step, "bytes_max", f"at most {BATCH_BYTES_MAX}", self.bytes_max)
        require(
            is_above_zero(self.linger_s), step, "linger_s", "more than 0 seconds", self.linger_s
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Union:
    """The records of several steps, in no order between them."""

    name: str
    inputs: tuple[str, ...]

    def __post_init__(self) -> None:
        check_name(self.name)
        enough = isinstance(self.inputs, tuple) and len(self.inputs) >= 2
        require(enough, f"step {self.name!r}", "inputs", "two steps or more", self.inputs)


@dataclass(frozen=True, slots=True)
class Write:
    """Records into a sink."""

    name: str
    input: str
    sink: Sink | FlinkSink

    def __post_init__(self) -> None:
        known = _is(self.sink, Sink, FlinkSink)
        _check_spec(self.name, "sink", known, "a sink with writer() or flink_sink()", self.sink)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


KeyedNode = Deduplicate | ChangesOnly | RateLimit | Fold
#: Steps of event time, keys and state.
StatefulNode = TimeNode | KeyBy | Window | Late | TimeJoin | BroadcastJoin | KeyedNode
Node = Read | FlatMap | MapBatches | Call | Batch | Union | Write | StatefulNode


@dataclass(frozen=True)
class Graph:
    """A pipeline: its steps, inputs before users, and where failed records go.

    Two graphs with the same nodes in another order of branches are different values but run alike.
    """

    nodes: tuple[Node, ...]
    dead_letters: FlinkSink | Sink | None = None

    def __post_init__(self) -> None:
        sink = self.dead_letters
        known = sink is None or _is(sink, FlinkSink, Sink)
        require(known, "pipeline", "dead_letters", 'a sink such as kafka("dead-letters")', sink)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Each step by its name."""
        return {node.name: node for node in self.nodes}

    def users(self, name: str) -> Iterator[Node]:
        """The steps that read from step ``name``, in graph order."""
        return (node for node in self.nodes if name in node.inputs)

    def dead_letters_to(self, sink: FlinkSink | Sink) -> "Graph":
        """The same pipeline, its failed records written to ``sink``.

        On Flink. The in-process target returns them in its outcome and does not write to ``sink``.
        """
        return replace(self, dead_letters=sink)


def for_job(graph: Graph, name: str) -> Graph:
    """The graph of the job called ``name``: its sources and sinks are those of that job."""

    def in_job(spec: Any) -> Any:
        return spec.for_job(name) if isinstance(spec, JobScoped) else spec

    nodes: list[Node] = []
    for node in graph.nodes:
        match node:
            case Read():
                nodes.append(replace(node, source=in_job(node.source)))
            case Write():
                nodes.append(replace(node, sink=in_job(node.sink)))
            case _:
                nodes.append(node)
    return Graph(tuple(nodes), in_job(graph.dead_letters))


def require_graph(graph: Any) -> Graph:
    """The graph, when it is one.

    Raises:
        PipelineError: it is a stream that ends in no sink, or no pipeline at all.
    """
    if isinstance(graph, Graph):
        return graph
    last = getattr(graph, "name", None)
    if hasattr(graph, "nodes") and last:
        raise PipelineError(
            f"pipeline: ends in step {last!r}; end the branch with .write(name, sink)"
        )
    raise PipelineError(f"pipeline: must be a graph that ends in .write(...), got {graph!r:.200}")


def _check_spec(name: Any, field: str, known: bool, required: str, got: Any) -> None:
    check_name(name)
    if not known and isinstance(got, type):
        required = f"{required}, and an object: {got.__name__}(...)"
    elif not known:
        required += _members_missing(field, got)
    require(known, f"step {name!r}", field, required, got)


def _members_missing(field: str, got: Any) -> str:
    """What a sink or call lacks, in words; empty where it has no member of its protocol at all."""
    if (protocol := {"sink": Sink, "spec": CallSpec}.get(field)) is None:
        return ""
    members = get_protocol_members(protocol)
    missing = sorted(name for name in members if not hasattr(got, name))
    named = f" ({', '.join(missing)} missing: see {protocol.__name__} in sage_flink.flow.ports)"
    return named if len(missing) < len(members) else ""


def _check_plain(name: str, field: str, function: Any) -> None:
    if kind := asynchronous(function):
        raise PipelineError(
            f"step {name!r}: {field} must be a plain function, got {kind}{place_of(function)}; "
            "requests to the model pool are .call(...), any other client must be a blocking one"
        )


def _is(thing: Any, *protocols: Any) -> bool:
    return not isinstance(thing, type) and isinstance(thing, protocols)
