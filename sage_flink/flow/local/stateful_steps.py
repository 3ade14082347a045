"""Event time, keys, windows and state in process: what each step makes of a record or a watermark.

Idle partitions are not known here: the sources of a run end.
"""

import time
from collections.abc import Iterator
from typing import NamedTuple

from sage_flink.common.errors import Rejected
from sage_flink.common.records import FailedRecord, Record, encode_valid
from sage_flink.flow.folds import Folder
from sage_flink.flow.graph import Graph, StatefulNode
from sage_flink.flow.stateful.broadcast_state import BroadcastRows
from sage_flink.flow.stateful.broadcasts import BroadcastJoin
from sage_flink.flow.stateful.count_window_state import CountWindowState
from sage_flink.flow.stateful.fields import read_field
from sage_flink.flow.stateful.join_state import JoinState, Side
from sage_flink.flow.stateful.joins import Join, TemporalJoin, TimeJoin, join_flaw, late_in_join
from sage_flink.flow.stateful.keyed_nodes import RATE_LATE, ChangesOnly, Fold, RateLimit
from sage_flink.flow.stateful.keyed_state import LastValues, PassedRecords
from sage_flink.flow.stateful.keys import key_by_field, key_flaw
from sage_flink.flow.stateful.nodes import (
    LATE,
    Deduplicate,
    EventTime,
    KeyBy,
    Late,
    ProcessingTime,
    TimeNode,
    Window,
)
from sage_flink.flow.stateful.temporal_state import TemporalJoinState
from sage_flink.flow.stateful.times import field_ms, own_ms
from sage_flink.flow.stateful.watermarks import Watermarks
from sage_flink.flow.stateful.window_state import WindowState, window_flaw
from sage_flink.flow.stateful.windows import milliseconds


class LateRecord(NamedTuple):
    """A record that arrived when all of its windows were over, or too late for a join."""

    record: Record


class KeyedFold:
    """A fold with the state of each key, and until when it is kept."""

    def __init__(self, node: Fold) -> None:
        self._folder = Folder(node)
        self._ttl_s = float("inf") if node.ttl_s is None else node.ttl_s
        self._states: dict[bytes | None, tuple[bytes | None, float]] = {}

    def add(self, record: Record) -> list[Record | FailedRecord]:
        """The records and failures that the step makes of ``record``."""
        now_s = time.monotonic()
        kept, until_s = self._states.get(record.key, (None, 0.0))
        state, made = self._folder.fold(kept if now_s < until_s else None, record)
        self._states[record.key] = state, now_s + self._ttl_s
        return made


class StatefulSteps:
    """The state of all such steps of a graph."""

    def __init__(self, graph: Graph) -> None:
        self.joins = {
            n.name: JoinState(n) if isinstance(n, Join) else TemporalJoinState(n)
            for n in graph.nodes
            if isinstance(n, TimeJoin)
        }
        self.rows = {n.name: BroadcastRows(n) for n in graph.nodes if isinstance(n, BroadcastJoin)}
        self.windows = {
            n.name: WindowState(n) if n.is_timed else CountWindowState(n)
            for n in graph.nodes
            if isinstance(n, Window)
        }
        self.watermarks = {
            n.name: Watermarks(milliseconds(n.out_of_order_s if isinstance(n, EventTime) else 0))
            for n in graph.nodes
            if isinstance(n, TimeNode)
        }
        self.latest_ms = 0
        self.seen: dict[str, dict[str | bytes, float]] = {}
        self.last = {n.name: LastValues(n) for n in graph.nodes if isinstance(n, ChangesOnly)}
        self.folds = {n.name: KeyedFold(n) for n in graph.nodes if isinstance(n, Fold)}
        self.passed = {n.name: PassedRecords(n) for n in graph.nodes if isinstance(n, RateLimit)}

    def process(
        self, node: StatefulNode, record: Record, upstream: str
    ) -> Iterator[Record | FailedRecord | LateRecord]:
        """The records and failures that the step makes of a record of the step ``upstream``.

        A late record is a :class:`LateRecord`, also where the step drops it.
        """
        match node:
            case Late():
                yield record
            case Deduplicate():
                yield from (record,) if self._is_new(node, record) else ()
            case ProcessingTime():
                self.latest_ms = max(self.latest_ms, _clock_ms())
                yield record.replace(timestamp_ms=self.latest_ms)
            case EventTime() | KeyBy():
                try:
                    yield (
                        self._with_time(node, record)
                        if isinstance(node, EventTime)
                        else (key_by_field(record, node.field))
                    )
                except Rejected as flaw:
                    yield FailedRecord(record, node.name, str(flaw))
            case BroadcastJoin():
                yield from self._broadcast(node, record, upstream)
            case Window():
                yield from self._add_to_windows(node, record)
            case Fold():
                yield from self.folds[node.name].add(record)
            case ChangesOnly() | RateLimit():
                yield from self._filter_by_key(node, record)
            case Join() | TemporalJoin():
                yield from self._join(node, record, upstream)

    def watermark_ms(self, node: TimeNode, record: Record) -> int | None:
        """The watermark behind a record that has its time; None where it did not advance."""
        origin = record.origin if isinstance(node, EventTime) else ""
        return self.watermarks[node.name].add(origin, record.timestamp_ms)

    def _add_to_windows(
        self, node: Window, record: Record
    ) -> Iterator[Record | FailedRecord | LateRecord]:
        if flaw := window_flaw(node, record):
            yield FailedRecord(record, node.name, flaw)
            return
        results = self.windows[node.name].add(record)
        if results is not None:
            yield from results
        else:
            yield LateRecord(record)

    def _filter_by_key(
        self, node: ChangesOnly | RateLimit, record: Record
    ) -> Iterator[Record | FailedRecord]:
        if flaw := key_flaw(record):
            yield FailedRecord(record, node.name, flaw)
        elif isinstance(node, ChangesOnly):
            if self.last[node.name].is_change(record, time.monotonic()):
                yield record
        elif (found := self.passed[node.name].add(record)) == "passes":
            yield record
        elif node.over == "dead_letter":
            reason = node.reason if found == "over" else RATE_LATE
            yield FailedRecord(record, node.name, reason)

    def _join(
        self, node: TimeJoin, record: Record, upstream: str
    ) -> Iterator[Record | FailedRecord | LateRecord]:
        side = _side(node, upstream)
        if flaw := join_flaw(node, record, side):
            yield FailedRecord(record, node.name, flaw)
            return
        pairs = self.joins[node.name].add(side, record)
        if pairs is None:
            yield LateRecord(record)
        else:
            yield from (_within_limit(node, pair) for pair in pairs)

    def _broadcast(
        self, node: BroadcastJoin, record: Record, upstream: str
    ) -> Iterator[Record | FailedRecord]:
        rows = self.rows[node.name]
        try:
            if upstream == node.right:
                rows.change(record)
            else:
                yield rows.enrich(record)
        except Rejected as flaw:
            yield FailedRecord(record, node.name, str(flaw))

    def advance(
        self, node: Window | TimeJoin, upstream: str, watermark_ms: int
    ) -> tuple[list[Record | FailedRecord], int]:
        """What the step emits at the watermark of its input ``upstream``, and its own watermark."""
        if isinstance(node, Window):
            return [*self.windows[node.name].advance(watermark_ms)], watermark_ms
        results, own_ms = self.joins[node.name].advance(_side(node, upstream), watermark_ms)
        return [_within_limit(node, result) for result in results], own_ms

    def _with_time(self, node: EventTime, record: Record) -> Record:
        ms = self._field_ms(node, record) if node.field else own_ms(record.timestamp_ms)
        if ms - _clock_ms() > milliseconds(node.ahead_s):
            ahead_s = milliseconds(node.ahead_s) // 1000
            raise Rejected(
                f"its event time, {ms} ms, is more than {ahead_s} s (ahead_s) ahead of the clock; "
                f"is its unit {node.unit}?"
            )
        return record.replace(timestamp_ms=ms)

    def _field_ms(self, node: EventTime, record: Record) -> int:
        value = read_field(record.value, node.field)
        if value is None:
            raise Rejected(f"it has no event time: no value at {node.field!r}")
        try:
            return field_ms(value, node.unit)
        except Rejected as flaw:
            raise Rejected(f"it has no event time: {node.field!r} {flaw}") from flaw

    def _is_new(self, node: Deduplicate, record: Record) -> bool:
        by_key = node.by == "key" and record.key is not None
        identity = record.key if by_key and record.key is not None else record.id
        seen, now = self.seen.setdefault(node.name, {}), time.monotonic()
        if seen.get(identity, now) > now:
            return False
        seen[identity] = now + node.within_s
        return True


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


def late_reason(node: Window | TimeJoin) -> str:
    """Why a late record of the step is a dead letter."""
    return LATE if isinstance(node, Window) else late_in_join(node)


def _side(node: TimeJoin, upstream: str) -> Side:
    return "left" if upstream == node.left else "right"


def _within_limit(node: TimeJoin, result: Record) -> Record | FailedRecord:
    """The result, or its failure where the two values together are too large for a record."""
    try:
        encode_valid(result)
    except Rejected as flaw:
        return FailedRecord(result, node.name, str(flaw))
    return result
