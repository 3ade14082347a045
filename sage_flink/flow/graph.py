"""The pipeline as a value: frozen nodes that name their inputs, and nothing that runs.

Runner, drawer, checker and tests all read this one form. A node is added only when composition
cannot say it; everything else is a function from Stream to Stream in ``sage_flink.operators``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from sage_flink.flow.ports import CallSpec, FlinkSink, FlinkSource, Function, Sink, Source


@dataclass(frozen=True, slots=True)
class Read:
    """Records of a source."""

    name: str
    source: Source | FlinkSource

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

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Call:
    """Each record through the model pool, many in flight; at most ``capacity`` a subtask.

    ``timeout_s`` is the record's whole budget over at most ``attempts_max`` attempts.
    """

    name: str
    input: str
    spec: CallSpec
    capacity: int
    timeout_s: float
    attempts_max: int = 4
    ordered: bool = False
    items_max: int = 32
    linger_s: float = 0.005

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Batch:
    """Records gathered for a sink: by count, bytes, or the age of the oldest."""

    name: str
    input: str
    items_max: int
    bytes_max: int
    linger_s: float

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Union:
    """The records of several steps, in no order between them."""

    name: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """Records into a sink."""

    name: str
    input: str
    sink: Sink | FlinkSink

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

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Each step by its name."""
        return {node.name: node for node in self.nodes}

    def users(self, name: str) -> Iterator[Node]:
        """The steps that read from step ``name``, in graph order."""
        return (node for node in self.nodes if name in node.inputs)

    def dead_letters_to(self, sink: FlinkSink | Sink) -> "Graph":
        """The same pipeline, its failed records written to ``sink``."""
        return replace(self, dead_letters=sink)
