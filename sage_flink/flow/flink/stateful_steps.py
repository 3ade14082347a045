"""Event time, keys, windows and state on Flink: native operators, and their record counters."""

import base64
import json
from dataclasses import asdict
from typing import Any, NamedTuple, assert_never

import msgspec
from pyflink.common import Duration, WatermarkStrategy
from pyflink.datastream import DataStream
from pyflink.java_gateway import get_gateway

from sage_flink.flow.flink.accounting import RecordAccounting
from sage_flink.flow.flink.savepoint_state import operator_name
from sage_flink.flow.flink.stage import failed_stream
from sage_flink.flow.graph import Graph, Node, Read, StatefulNode
from sage_flink.flow.stateful.aggregates import in_json
from sage_flink.flow.stateful.broadcasts import BroadcastJoin, timed_inputs
from sage_flink.flow.stateful.joins import Join, TemporalJoin, TimeJoin, late_in_join
from sage_flink.flow.stateful.keyed_nodes import RATE_LATE, ChangesOnly, Fold, RateLimit
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
from sage_flink.flow.stateful.windows import (
    CountTumbling,
    Early,
    Global,
    Session,
    Sliding,
    Tumbling,
    Windows,
    milliseconds,
)
from sage_flink.platform.record_accounting import counter_name


class Compiled(NamedTuple):
    """The output of a step, its dead letters, and the late records of a window or join."""

    out: DataStream
    failed: tuple[DataStream, ...] = ()
    late: DataStream | None = None


class StatefulCompiler:
    """Adds the operators of such steps to a job."""

    def __init__(self, graph: Graph, accounting: RecordAccounting, job: str, run: str) -> None:
        self.graph, self.accounting, self.job, self.run = graph, accounting, job, run

    def add(self, node: StatefulNode, stream: DataStream, *others: DataStream) -> Compiled:
        """The operators of ``node`` on ``stream``; of a join on its two streams."""
        match node:
            case EventTime():
                return self.event_time(node, stream)
            case ProcessingTime():
                return self.processing_time(node, stream)
            case KeyBy():
                return self.key_by(node, stream)
            case Window():
                return self.window(node, stream)
            case Join() | TemporalJoin():
                return self.join(node, stream, *others)
            case BroadcastJoin():
                return self.broadcast_join(node, stream, *others)
            case Deduplicate():
                return self.deduplicate(node, stream)
            case ChangesOnly():
                return self.changes_only(node, stream)
            case RateLimit():
                return self.rate_limit(node, stream)
            case Late() | Fold():
                raise AssertionError("an output of a window step, and a stage of Python")
            case _:
                assert_never(node)

    def event_time(self, node: EventTime, stream: DataStream) -> Compiled:
        """Java operator that makes watermarks; its state is the time of each partition."""
        config = self._config(
            node.name,
            field=node.field,
            unit=node.unit,
            out_of_order_ms=milliseconds(node.out_of_order_s),
            idle_ms=milliseconds(node.idle_s),
            ahead_ms=milliseconds(node.ahead_s),
            source_has_watermarks=_has_native_source(self.graph, self.graph.by_name[node.input]),
        )
        native = get_gateway().jvm.org.sage.flink.time.EventTimeOperator
        return self._one_to_one(node.name, native.wire(stream._j_data_stream, config))

    def processing_time(self, node: ProcessingTime, stream: DataStream) -> Compiled:
        """Java operator that makes watermarks of the clock; its state is the latest time."""
        native = get_gateway().jvm.org.sage.flink.time.ProcessingTimeOperator
        out = DataStream(native.wire(stream._j_data_stream, node.name))
        counters = [counter_name(node.name, count) for count in ("read", "emitted")]
        return Compiled(self._count(out, node.name, *counters))

    def key_by(self, node: KeyBy, stream: DataStream) -> Compiled:
        """Java operator that sets the record's key."""
        native = get_gateway().jvm.org.sage.flink.keyed.KeyByOperator
        j_stream = stream._j_data_stream
        out = native.wire(j_stream, node.name, node.field, self.job, self.run)
        return self._one_to_one(node.name, out)

    def deduplicate(self, node: Deduplicate, stream: DataStream) -> Compiled:
        """Java function with one flag for each id or key, which expires."""
        native = get_gateway().jvm.org.sage.flink.keyed.DeduplicateFunction
        read = self._count(stream, f"{node.name}.input", counter_name(node.name, "read"))
        within_ms = milliseconds(node.within_s)
        out = DataStream(native.wire(read._j_data_stream, node.name, node.by, within_ms))
        return Compiled(self._count(out, node.name, counter_name(node.name, "emitted")))

    def changes_only(self, node: ChangesOnly, stream: DataStream) -> Compiled:
        """Java function with the last value of each key."""
        ttl_ms = 0 if node.ttl_s is None else milliseconds(node.ttl_s)
        native = get_gateway().jvm.org.sage.flink.keyed.ChangesOnlyFunction
        return self._keyed_step(node.name, stream, native, node.field, ttl_ms)

    def rate_limit(self, node: RateLimit, stream: DataStream) -> Compiled:
        """Java function with the counts of each key's windows."""
        refuses = node.over == "dead_letter"
        reasons = (node.reason, RATE_LATE) if refuses else (None, None)
        native = get_gateway().jvm.org.sage.flink.keyed.RateLimitFunction
        size_ms = milliseconds(node.per_s)
        return self._keyed_step(node.name, stream, native, node.records_max, size_ms, *reasons)

    def _keyed_step(self, name: str, stream: DataStream, native: Any, *settings: Any) -> Compiled:
        """A Java function that counts in its output what it drops and refuses."""
        read = self._count(stream, f"{name}.input", counter_name(name, "read"))
        out = native.wire(read._j_data_stream, name, self.job, self.run, *settings)
        emitted = self._count(DataStream(out), name, counter_name(name, "emitted"))
        return Compiled(emitted, (failed_stream(out),))

    def window(self, node: Window, stream: DataStream) -> Compiled:
        """Flink's window operator, behind an operator that refuses what it cannot take."""
        config = self._window_config(node)
        native = get_gateway().jvm.org.sage.flink.window.WindowStep
        checked = native.checked(stream._j_data_stream, config)
        taken = DataStream(checked).name(operator_name(f"{node.name}.input"))
        read = self._count(taken, f"{node.name}.input", counter_name(node.name, "read"))
        windows = native.wire(read._j_data_stream, config)
        out = self._count(DataStream(windows), node.name, counter_name(node.name, "emitted"))
        failed = [failed_stream(checked)]
        if not node.is_timed:
            return Compiled(out, tuple(failed))
        late = self._late(node, DataStream(native.late(windows)))
        if self._is_late_failed(node):
            letters = DataStream(native.lateLetters(late._j_data_stream, config, LATE))
            failed.append(letters.name(operator_name(f"{node.name}.late")))
        return Compiled(out, tuple(failed), late)

    def join(self, node: TimeJoin, left: DataStream, right: DataStream) -> Compiled:
        """Java operator over both inputs, each behind an operator that refuses as a window's."""
        config = self._join_config(node)
        native = get_gateway().jvm.org.sage.flink.join.JoinStep
        inputs, failed = [], []
        for side, stream in (("left", left), ("right", right)):
            uid = f"{node.name}.{side}-input"
            takes_deletes = isinstance(node, TemporalJoin) and side == "right"
            checked = native.checked(stream._j_data_stream, config, side, takes_deletes)
            taken = DataStream(checked).name(operator_name(uid))
            inputs.append(self._count(taken, uid, counter_name(node.name, f"{side}_read")))
            failed.append(failed_stream(checked))
        wire = native.wire if isinstance(node, Join) else native.wireTemporal
        results = wire(*(stream._j_data_stream for stream in inputs), config)
        failed.append(failed_stream(results))
        out = self._count(DataStream(results), node.name, counter_name(node.name, "emitted"))
        late = self._late(node, DataStream(native.late(results)))
        if self._is_late_failed(node):
            letters = DataStream(
                native.lateLetters(late._j_data_stream, config, late_in_join(node))
            )
            failed.append(letters.name(operator_name(f"{node.name}.late")))
        return Compiled(out, tuple(failed), late)

    def broadcast_join(self, node: BroadcastJoin, left: DataStream, right: DataStream) -> Compiled:
        """Java operator with all rows, behind an operator of one subtask for their changes."""
        packed = msgspec.msgpack.encode(node.initial)
        config = self._config(
            node.name,
            into=node.output_field,
            field=node.field,
            initial=base64.b64encode(packed).decode(),
        )
        native = get_gateway().jvm.org.sage.flink.broadcast
        uid = f"{node.name}.right-input"
        checked = native.BroadcastInputOperator.wire(right._j_data_stream, config)
        taken = DataStream(checked).name(operator_name(uid))
        counters = [counter_name(node.name, count) for count in ("right_read", "changes")]
        changes = self._count(taken, uid, *counters).force_non_parallel()
        out = native.BroadcastJoinOperator.wire(left._j_data_stream, changes._j_data_stream, config)
        counters = [counter_name(node.name, count) for count in ("left_read", "emitted")]
        made = self._count(DataStream(out), node.name, *counters)
        return Compiled(made, (failed_stream(checked), failed_stream(out)))

    def _join_config(self, node: TimeJoin) -> str:
        similar = None
        if isinstance(node, Join):
            interval = (node.before_ms, node.after_ms, node.output_delay_ms)
            alone = list(node.emitted_alone)
            similar = asdict(node.similar) if node.similar else None
        else:
            interval, alone = (0, 0, 0), ["left"] if node.how == "left" else []
        names = ("before_ms", "after_ms", "output_delay_ms")
        settings = dict(zip(names, interval, strict=True))
        return self._config(node.name, **settings, emitted_alone=alone, similar=similar)

    def _late(self, node: Window | TimeJoin, late: DataStream) -> DataStream:
        """The late records, counted in the step and in what becomes of them."""
        counters = [counter_name(node.name, "late")]
        for reader in self._late_readers(node):
            counters += [counter_name(reader.name, count) for count in ("read", "emitted")]
        if self._is_late_failed(node):
            counters.append(counter_name(node.name, "dead_lettered"))
        return self._count(late, f"{node.name}.late", *counters)

    def _late_readers(self, node: Window | TimeJoin) -> list[Late]:
        return [user for user in self.graph.users(node.name) if isinstance(user, Late)]

    def _is_late_failed(self, node: Window | TimeJoin) -> bool:
        return node.late == "dead_letter" and not self._late_readers(node)

    def _window_config(self, node: Window) -> str:
        return self._config(
            node.name,
            **_windows(node.windows),
            lateness_ms=milliseconds(node.lateness_s),
            **_early(node.early),
            aggregates=[
                *(() if node.is_timed else ({"name": "", "kind": "span"},)),
                *(in_json(name, spec) for name, spec in node.aggregates.items()),
            ],
        )

    def _config(self, step: str, **settings: Any) -> str:
        return json.dumps({"step": step, "job": self.job, "run": self.run, **settings})

    def _one_to_one(self, name: str, j_stream: Any) -> Compiled:
        counters = [counter_name(name, count) for count in ("read", "emitted")]
        return Compiled(
            self._count(DataStream(j_stream), name, *counters), (failed_stream(j_stream),)
        )

    def _count(self, stream: DataStream, label: str, *counters: str) -> DataStream:
        return self.accounting.count_stage(stream, label, list(counters))


def source_watermarks(graph: Graph) -> WatermarkStrategy:
    """Watermarks that tell the steps of event time that each partition was heard, or is idle."""
    idle_s = [node.idle_s for node in graph.nodes if isinstance(node, EventTime)]
    if not idle_s:
        return WatermarkStrategy.no_watermarks()
    idle = Duration.of_millis(milliseconds(min(idle_s)))
    return WatermarkStrategy.for_monotonous_timestamps().with_idleness(idle)


def _has_native_source(graph: Graph, node: Node) -> bool:
    """Whether watermarks of a source of Flink come out of the step."""
    if isinstance(node, Read):
        return bool(getattr(node.source, "has_watermarks", False))
    before = [graph.by_name[name] for name in timed_inputs(node)]
    return not isinstance(node, TimeNode) and all(_has_native_source(graph, b) for b in before)


def _windows(windows: Windows) -> dict[str, Any]:
    none = {"size_ms": 0, "every_ms": 0, "records_max": 0}
    match windows:
        case Tumbling(size_s):
            return {**none, "kind": "tumbling", "size_ms": milliseconds(size_s)}
        case Sliding(size_s, every_s):
            sizes = {"size_ms": milliseconds(size_s), "every_ms": milliseconds(every_s)}
            return {**none, "kind": "sliding", **sizes}
        case Session(gap_s):
            return {**none, "kind": "session", "size_ms": milliseconds(gap_s)}
        case CountTumbling(records):
            return {**none, "kind": "count", "records_max": records}
        case Global():
            return {**none, "kind": "global"}


def _early(early: Early | None) -> dict[str, int]:
    every_s, records = (early.every_s, early.every_records) if early else (None, None)
    return {"early_every_ms": milliseconds(every_s or 0), "early_every_records": records or 0}
