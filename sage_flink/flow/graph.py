"""The pipeline as a value: frozen nodes that name their inputs, and nothing that runs.

Runner, drawer, checker and tests all read this one form. A node checks its own fields, whoever
makes it: builder, YAML or Python. A node is added only when composition cannot say it; everything
else is a function from Stream to Stream in ``sage_flink.operators``.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sage_flink.common.errors import PipelineError
from sage_flink.common.need import need, need_whole
from sage_flink.flow.ports import CallSpec, FlinkSink, FlinkSource, Function, Sink, Source

#: The name of the step that a target adds for failed records.
DEAD_LETTERS = "dead-letters"
#: The step of a replay that marks the letters it took, in the topic they came from.
REPLAYED = "replayed-letters"
#: What a call does when nothing else is said.
ATTEMPTS_MAX = 4
ITEMS_MAX = 32
TOKENS_MAX = 16_384
LINGER_S = 0.005
#: From the most urgent to what may wait for ever.
PRIORITIES = ("interactive", "high", "normal", "low", "background")
PRIORITY = "normal"


@dataclass(frozen=True, slots=True)
class Read:
    """Records of a source."""

    name: str
    source: Source | FlinkSource

    def __post_init__(self) -> None:
        known = _is(self.source, Source, FlinkSource)
        required = "a source with records() or flink_source()"
        _checked(self.name, "source", known, required, self.source)

    @property
    def inputs(self) -> tuple[str, ...]:
        """None: a source has no input."""
        return ()


@dataclass(frozen=True, slots=True)
class FlatMap:
    """Each record through a function: one in, any number out."""

    name: str
    input: str
    function: Function

    def __post_init__(self) -> None:
        known = callable(self.function) and not isinstance(self.function, type)
        _checked(self.name, "function", known, "a callable taking a Record", self.function)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Call:
    """Each record through the model pool, many in flight; at most ``capacity`` a subtask.

    ``timeout_s`` is the record's whole budget over at most ``attempts_max`` attempts. Calls that
    embed gather at most ``items_max`` texts of about ``tokens_max`` tokens in all (four bytes
    each) into a request, and wait at most ``linger_s`` for them.

    The pool is told who asks and how urgently: ``tenant``, ``priority`` (one of PRIORITIES), and
    as deadline the record's arrival at the call plus ``slack_s`` (None: ``timeout_s``). A record's
    own headers go before these; see :func:`~sage_flink.flow.steps.call_headers`.
    """

    name: str
    input: str
    spec: CallSpec
    capacity: int
    timeout_s: float
    attempts_max: int = ATTEMPTS_MAX
    ordered: bool = False
    items_max: int = ITEMS_MAX
    linger_s: float = LINGER_S
    tokens_max: int = TOKENS_MAX
    slack_s: float | None = None
    tenant: str = ""
    priority: str = PRIORITY

    def __post_init__(self) -> None:
        known = _is(self.spec, CallSpec)
        _checked(self.name, "spec", known, "a call such as sage.embed(...)", self.spec)
        step = f"step {self.name!r}"
        need_whole(step, "capacity", self.capacity)
        need_whole(step, "attempts_max", self.attempts_max)
        need_whole(step, "items_max", self.items_max)
        need(_above_zero(self.timeout_s), step, "timeout_s", "more than 0 seconds", self.timeout_s)
        lingers = self.linger_s == 0 or _above_zero(self.linger_s)
        need(lingers, step, "linger_s", "0 seconds or more", self.linger_s)
        need_whole(step, "tokens_max", self.tokens_max)
        slack = self.slack_s is None or _above_zero(self.slack_s)
        need(slack, step, "slack_s", "more than 0 seconds, or None", self.slack_s)
        token = isinstance(self.tenant, str) and _is_token(self.tenant)
        need(token, step, "tenant", "at most 100 letters, digits, '.', '_', '-'", self.tenant)
        classes = f"one of {', '.join(PRIORITIES)}"
        need(self.priority in PRIORITIES, step, "priority", classes, self.priority)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Batch:
    """Records gathered for a sink: by count, bytes, or the age of the oldest.

    The local run gathers by count alone.
    """

    name: str
    input: str
    items_max: int
    bytes_max: int
    linger_s: float

    def __post_init__(self) -> None:
        _named(self.name)
        step = f"step {self.name!r}"
        need_whole(step, "items_max", self.items_max)
        need_whole(step, "bytes_max", self.bytes_max)
        need(_above_zero(self.linger_s), step, "linger_s", "more than 0 seconds", self.linger_s)

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
        _named(self.name)
        enough = isinstance(self.inputs, tuple) and len(self.inputs) >= 2
        need(enough, f"step {self.name!r}", "inputs", "two steps or more", self.inputs)


@dataclass(frozen=True, slots=True)
class Write:
    """Records into a sink."""

    name: str
    input: str
    sink: Sink | FlinkSink

    def __post_init__(self) -> None:
        known = _is(self.sink, Sink, FlinkSink)
        _checked(self.name, "sink", known, "a sink with writer() or flink_sink()", self.sink)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


Node = Read | FlatMap | Call | Batch | Union | Write


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
        need(known, "pipeline", "dead_letters", 'a sink such as kafka("dead-letters")', sink)

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Each step by its name."""
        return {node.name: node for node in self.nodes}

    def users(self, name: str) -> Iterator[Node]:
        """The steps that read from step ``name``, in graph order."""
        return (node for node in self.nodes if name in node.inputs)

    def dead_letters_to(self, sink: FlinkSink | Sink) -> "Graph":
        """The same pipeline, its failed records written to ``sink``.

        On Flink. The local run hands them back in its outcome and leaves ``sink`` alone.
        """
        return replace(self, dead_letters=sink)


def finished(graph: Any) -> Graph:
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


def _named(name: Any) -> None:
    if not isinstance(name, str) or not (0 < len(name) <= 100) or name != name.strip():
        raise PipelineError(f"step name: must be 1 to 100 characters of text, got {name!r:.200}")
    if not name.isprintable():
        raise PipelineError(f"step name: must be on one line, without control signs, got {name!r}")
    if name == DEAD_LETTERS:
        raise PipelineError(f"step name: {name!r} is the step for failed records; take another")


def _checked(name: Any, field: str, known: bool, required: str, got: Any) -> None:
    _named(name)
    if not known and isinstance(got, type):
        required = f"{required}, and an object: {got.__name__}(...)"
    need(known, f"step {name!r}", field, required, got)


def _is(thing: Any, *protocols: Any) -> bool:
    return not isinstance(thing, type) and isinstance(thing, protocols)


def _is_token(text: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9._-]{0,100}", text))


def _above_zero(got: Any) -> bool:
    number = isinstance(got, int | float) and not isinstance(got, bool)
    return number and math.isfinite(got) and got > 0
