"""The fluent builder: one method for each kind of step. The nodes check their arguments.

>>> from sage_flink.flow.lists import ListSink, ListSource
>>> words = read("in", ListSource(())).flat_map("split", lambda record: record.value.split())
>>> short = words.filter("short", lambda record: len(record.value) < 5)
>>> graph = short.map("upper", lambda record: record.value.upper()).write("out", ListSink())
>>> [node.name for node in graph.nodes]
['in', 'split', 'short', 'upper', 'out.batch', 'out']
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sage_flink.common.records import Record
from sage_flink.common.validation import require
from sage_flink.flow.batch_maps import BatchFunction, MapBatches
from sage_flink.flow.call_options import Admission, Batching, Merging, Retry
from sage_flink.flow.call_ports import CallSpec
from sage_flink.flow.functions import Filter, Map
from sage_flink.flow.graph import Batch, Call, FlatMap, Graph, Node, Read, Union, Write
from sage_flink.flow.pipelines import merge_nodes
from sage_flink.flow.ports import FlinkSink, FlinkSource, Function, Sink, Source
from sage_flink.flow.routes import branches
from sage_flink.flow.stateful.aggregates import Aggregate, Count
from sage_flink.flow.stateful.broadcasts import BroadcastJoin
from sage_flink.flow.stateful.joins import How, Join, TemporalJoin
from sage_flink.flow.stateful.keyed_nodes import ChangesOnly, Fold, FoldFunction, RateLimit
from sage_flink.flow.stateful.keys import KeyOf
from sage_flink.flow.stateful.nodes import (
    Deduplicate,
    EventTime,
    KeyBy,
    Late,
    ProcessingTime,
    Window,
)
from sage_flink.flow.stateful.similar import Similar
from sage_flink.flow.stateful.times import Unit
from sage_flink.flow.stateful.windows import Early, Windows


@dataclass(frozen=True, slots=True)
class Stream:
    """The output of the last step of ``nodes``; verbs return a longer stream."""

    nodes: tuple[Node, ...]

    @property
    def name(self) -> str:
        """The name of the last step."""
        return self.nodes[-1].name

    def flat_map(self, name: str, function: Function) -> "Stream":
        """Each record through ``function``, which yields any number of values or records."""
        return self._then(FlatMap(name, self.name, function))

    def map(self, name: str, function: Callable[[Record], Any]) -> "Stream":
        """Each record with the value that ``function`` makes of it; the record keeps its id."""
        return self.flat_map(name, Map(function))

    def filter(self, name: str, function: Callable[[Record], bool]) -> "Stream":
        """The records for which ``function`` returns true."""
        return self.flat_map(name, Filter(function))

    def map_batches(
        self, name: str, function: BatchFunction, *, items_max: int = 100, linger_s: float = 0.01
    ) -> "Stream":
        """Batches of records through ``function``; see :class:`~sage_flink.flow.MapBatches`."""
        return self._then(MapBatches(name, self.name, function, items_max, linger_s))

    def split(
        self,
        name: str,
        predicates: Mapping[str, Callable[[Record], bool]],
        *,
        rest: str | None = None,
    ) -> "dict[str, Stream]":
        """A stream for each predicate: a record is in that of the first one that is true.

        A record for which all are false is in the stream called ``rest``; without ``rest`` it is
        dropped. Each stream is a filter, the step ``name.branch``, which asks the predicates
        before its own too: they have to depend on the record alone. A record at which one raises
        is a dead letter of that one's step. A delete is in every stream.

        >>> from sage_flink.flow.lists import ListSource
        >>> numbers = read("in", ListSource(()))
        >>> split = numbers.split("size", {"big": lambda r: r.value > 9}, rest="small")
        >>> {branch: stream.name for branch, stream in split.items()}
        {'big': 'size.big', 'small': 'size.small'}

        Raises:
            PipelineError: there is no predicate, or one cannot be used.
        """
        found = branches(name, predicates, rest)
        return {
            branch: self.filter(f"{name}.{branch}", predicate)
            for branch, predicate in found.items()
        }

    def call(
        self,
        name: str,
        spec: CallSpec,
        *,
        capacity: int,
        timeout_s: float,
        ordered: bool = False,
        retry: Retry = Retry(),  # noqa: B008 - a frozen value, as are the next two
        batching: Batching = Batching(),  # noqa: B008
        admission: Admission = Admission(),  # noqa: B008
        merging: Merging | None = None,
        cache_ttl_s: int = 0,
    ) -> "Stream":
        """Each record through the model pool; see :class:`~sage_flink.flow.Call`."""
        return self._then(
            Call(
                name,
                self.name,
                spec,
                capacity=capacity,
                timeout_s=timeout_s,
                ordered=ordered,
                retry=retry,
                batching=batching,
                admission=admission,
                merging=merging,
                cache_ttl_s=cache_ttl_s,
            )
        )

    def event_time(
        self,
        name: str,
        *,
        out_of_order_s: float,
        field: str = "",
        unit: Unit = "ms",
        idle_s: float = 60.0,
        ahead_s: float = 86_400.0,
    ) -> "Stream":
        """Event time and watermarks; see :class:`~sage_flink.flow.EventTime`."""
        return self._then(EventTime(name, self.name, out_of_order_s, field, unit, idle_s, ahead_s))

    def processing_time(self, name: str) -> "Stream":
        """The clock as event time; see :class:`~sage_flink.flow.ProcessingTime`."""
        return self._then(ProcessingTime(name, self.name))

    def key_by(self, name: str, key: str | Callable[[Record], Any]) -> "Stream":
        """Each record with another key: the field of that path, or what the function returns."""
        if isinstance(key, str):
            return self._then(KeyBy(name, self.name, key))
        return self.flat_map(name, KeyOf(key))

    def window(
        self,
        name: str,
        windows: Windows,
        aggregates: Mapping[str, Aggregate] | None = None,
        *,
        lateness_s: float = 0.0,
        late: Literal["dead_letter", "drop"] = "dead_letter",
        early: Early | None = None,
    ) -> "Stream":
        """Aggregates of each key and window, by default the count of records.

        See :class:`~sage_flink.flow.Window`. A Python function gets a window's values with Collect
        and a map behind it, of at most ``items_max`` records, each as the value it had:

        >>> from sage_flink.flow.lists import ListSource
        >>> from sage_flink.flow.stateful.aggregates import Collect
        >>> from sage_flink.flow.stateful.windows import Session
        >>> timed = read("in", ListSource(())).event_time("time", out_of_order_s=5)
        >>> by_user = timed.key_by("by-user", "user")
        >>> visits = by_user.window("visits", Session(600), {"events": Collect()})
        >>> paths = visits.map("paths", lambda visit: [e["page"] for e in visit.value["events"]])
        """
        given = {"count": Count()} if aggregates is None else aggregates
        return self._then(Window(name, self.name, windows, given, lateness_s, late, early))

    def join(
        self,
        name: str,
        other: "Stream",
        *,
        within_s: tuple[float, float],
        how: How = "inner",
        late: Literal["dead_letter", "drop"] = "dead_letter",
        similar: Similar | None = None,
    ) -> "Stream":
        """Pairs of records of this stream (left) and ``other`` (right) with one key.

        The right one is at most ``within_s[0]`` seconds earlier and ``within_s[1]`` later, and with
        ``similar`` their vectors are near; see :class:`~sage_flink.flow.Join`.
        """
        require(isinstance(other, Stream), f"step {name!r}", "other", "a stream", other)
        node = Join(name, self.name, other.name, within_s, how, late, similar)
        return Stream((*merge_nodes(self.nodes, other.nodes), node))

    def temporal_join(
        self,
        name: str,
        versions: "Stream",
        *,
        how: Literal["inner", "left"] = "inner",
        late: Literal["dead_letter", "drop"] = "dead_letter",
    ) -> "Stream":
        """Each record of this stream with the version of its key in ``versions`` at its time.

        See :class:`~sage_flink.flow.TemporalJoin`.
        """
        require(isinstance(versions, Stream), f"step {name!r}", "versions", "a stream", versions)
        node = TemporalJoin(name, self.name, versions.name, how, late)
        return Stream((*merge_nodes(self.nodes, versions.nodes), node))

    def broadcast_join(
        self,
        name: str,
        changes: "Stream",
        *,
        into: str = "",
        field: str = "",
        initial: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> "Stream":
        """Each record with the rows of the changelog ``changes``, which change at a checkpoint.

        See :class:`~sage_flink.flow.BroadcastJoin`.
        """
        require(isinstance(changes, Stream), f"step {name!r}", "changes", "a stream", changes)
        rows = {} if initial is None else initial
        node = BroadcastJoin(name, self.name, changes.name, into, field, rows)
        return Stream((*merge_nodes(self.nodes, changes.nodes), node))

    def late(self, name: str) -> "Stream":
        """The late records of this window step or join, to be written on a branch of their own."""
        return self._then(Late(name, self.name))

    def deduplicate(
        self, name: str, *, within_s: float, by: Literal["id", "key"] = "id"
    ) -> "Stream":
        """The first record of each id or key; see :class:`~sage_flink.flow.Deduplicate`."""
        return self._then(Deduplicate(name, self.name, within_s, by))

    def changes_only(self, name: str, field: str = "", *, ttl_s: float | None = None) -> "Stream":
        """The records whose value, or field, is new; see :class:`~sage_flink.flow.ChangesOnly`."""
        return self._then(ChangesOnly(name, self.name, field, ttl_s))

    def rate_limit(
        self,
        name: str,
        *,
        records_max: int,
        per_s: float,
        over: Literal["drop", "dead_letter"] = "drop",
    ) -> "Stream":
        """A limit on the records of each key; see :class:`~sage_flink.flow.RateLimit`."""
        return self._then(RateLimit(name, self.name, records_max, per_s, over))

    def fold(
        self, name: str, function: FoldFunction, *, initial: Any, ttl_s: float | None = None
    ) -> "Stream":
        """State for each key: ``function(state, record)`` returns the new one and a list.

        See :class:`~sage_flink.flow.Fold`.
        """
        return self._then(Fold(name, self.name, function, initial, ttl_s))

    def batch(self, name: str, *, items_max: int, bytes_max: int, linger_s: float) -> "Stream":
        """Micro-batches for the sink that follows."""
        return self._then(Batch(name, self.name, items_max, bytes_max, linger_s))

    def write(self, name: str, sink: Sink | FlinkSink) -> Graph:
        """Records into ``sink``, in the sink's own micro-batches where no batch precedes it."""
        end = Write(name, self.name, sink)
        if isinstance(sink, FlinkSink) or isinstance(self.nodes[-1], Batch):
            return Graph((*self.nodes, end))
        limits = sink.batch
        batch = self.batch(
            f"{name}.batch",
            items_max=limits.items_max,
            bytes_max=limits.bytes_max,
            linger_s=limits.linger_s,
        )
        return batch.write(name, sink)

    def _then(self, node: Node) -> "Stream":
        return Stream((*self.nodes, node))


def read(name: str, source: Source | FlinkSource) -> Stream:
    """The records of ``source`` as a stream."""
    return Stream((Read(name, source),))


def union(name: str, *streams: Stream) -> Stream:
    """The records of all ``streams``, in no order between them."""
    for stream in streams:
        require(isinstance(stream, Stream), f"step {name!r}", "streams", "streams", stream)
    node = Union(name, tuple(stream.name for stream in streams))
    return Stream((*merge_nodes(*(stream.nodes for stream in streams)), node))
