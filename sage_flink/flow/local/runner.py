"""Runs a graph in this process.

A run ends when its sources end, or when its task is cancelled. FailedRecord records are returned in
the outcome, and the graph's dead-letter sink is not used; a batch is complete by count, or at the
end, whatever its bytes and age. A crash loses everything in flight; the Flink target is the durable
one.
"""

import asyncio
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, TypeVar

from sage_flink.common.errors import PipelineError, SageError
from sage_flink.common.records import FailedRecord, Record
from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.batches import map_batch
from sage_flink.flow.call_ports import Pool
from sage_flink.flow.calls.caller import Caller, merged_counts
from sage_flink.flow.check import check
from sage_flink.flow.deletes import in_order
from sage_flink.flow.formats import with_formats
from sage_flink.flow.graph import (
    Batch,
    Call,
    FlatMap,
    Graph,
    Node,
    Read,
    StatefulNode,
    Union,
    Write,
    require_graph,
)
from sage_flink.flow.lifecycle import close, is_openable, open_copy
from sage_flink.flow.local.arrivals import arrivals, reads
from sage_flink.flow.local.outcome import Outcome
from sage_flink.flow.local.stateful_steps import LateRecord, StatefulSteps, late_reason
from sage_flink.flow.local.streaming import OnDelta, Streamable, StreamedPost
from sage_flink.flow.local.writers import Writers
from sage_flink.flow.ports import OpenContext, Sink, Source
from sage_flink.flow.stateful.broadcasts import BroadcastJoin
from sage_flink.flow.stateful.joins import Join, TemporalJoin, TimeJoin
from sage_flink.flow.stateful.keyed_nodes import Fold, RateLimit
from sage_flink.flow.stateful.nodes import EventTime, Late, ProcessingTime, TimeNode, Window
from sage_flink.flow.stateful.watermarks import END_MS
from sage_flink.flow.steps import catch_failure, flat_map

T = TypeVar("T")


async def run(
    graph: Graph,
    *,
    job: str = "local",
    pool: Pool | None = None,
    sources: Mapping[str, Source] | None = None,
    sinks: Mapping[str, Sink] | None = None,
    on_delta: OnDelta | None = None,
) -> Outcome:
    """Run ``graph`` to the end of its sources; ``sources`` and ``sinks`` replace steps by name.

    Operators are opened before the first record and closed at the end, on failure too; what their
    ``open`` raises is raised here.

    Raises:
        PipelineError: the graph cannot run in process, or a call has no pool.
        Retryable: a sink did not take a batch; no more records were read.
    """
    graph = _replace_ends(require_graph(graph), sources or {}, sinks or {})
    graph = in_order(check(graph, "local"))
    if pool is None and any(isinstance(node, Call) for node in graph.nodes):
        raise PipelineError("run: the pipeline calls the model pool; pass pool=http_pool(...)")
    async with AsyncExitStack() as resources:
        nodes = [await _open(node, job, resources) for node in graph.nodes]
        opened = replace(graph, nodes=tuple(nodes))
        return await _Run(opened, job, pool, on_delta, resources).to_the_end()


def _replace_ends(graph: Graph, sources: Mapping[str, Source], sinks: Mapping[str, Sink]) -> Graph:
    if unknown := (sources.keys() | sinks.keys()) - graph.by_name.keys():
        raise PipelineError(f"run: no step is called {', '.join(sorted(unknown))}")
    return with_formats(graph, sources, sinks)


async def _open(node: Node, job: str, resources: AsyncExitStack) -> Node:
    """The node with its operator opened; ``resources`` closes it."""
    match node:
        case FlatMap() | MapBatches() | Fold() if is_openable(node.function):
            function: Any = await _open_operator(node.function, job, node, resources)
            return replace(node, function=function)
        case Call(spec=spec) if is_openable(spec):
            return replace(node, spec=await _open_operator(spec, job, node, resources))
        case _:
            return node


async def _open_operator(operator: T, job: str, node: Node, resources: AsyncExitStack) -> T:
    opened = await asyncio.to_thread(open_copy, operator, OpenContext(job, node.name))
    resources.push_async_callback(asyncio.to_thread, close, opened)
    return opened


class _Run:
    def __init__(
        self,
        graph: Graph,
        job: str,
        pool: Pool | None,
        on_delta: OnDelta | None,
        resources: AsyncExitStack,
    ) -> None:
        self.graph, self.job, self.pool, self.on_delta = graph, job, pool, on_delta
        self.resources = resources
        self.users = {node.name: list(graph.users(node.name)) for node in graph.nodes}
        self.state = StatefulSteps(graph)
        self.in_flight = defaultdict[str, set[asyncio.Task[None]]](set)
        self.union_ms = {
            node.name: dict.fromkeys(node.inputs, -END_MS)
            for node in graph.nodes
            if isinstance(node, Union)
        }
        calls = [node for node in graph.nodes if isinstance(node, Call)]
        self.slots = {node.name: asyncio.Semaphore(node.capacity) for node in calls}
        self.callers = {node.name: self.caller(node) for node in calls}
        self.last: dict[str, asyncio.Event] = {}
        self.pending: dict[str, list[Record]] = {}
        self.writers = Writers(graph, resources)
        self.locks = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self.outcome = Outcome({n.name: [] for n in graph.nodes if isinstance(n, Write)})

    def caller(self, node: Call) -> Caller:
        assert self.pool is not None
        post, request = self.pool.post, node.spec.request
        if self.on_delta is not None and isinstance(node.spec, Streamable):
            post = StreamedPost(node, node.spec, self.pool, self.on_delta).post
            request = node.spec.request_streamed

        def keep_error(record: Record, error: SageError) -> None:
            self.outcome.errors[record.id] = error

        caller = Caller(node, post, job=self.job, request=request, on_failure=keep_error)
        self.resources.push_async_callback(caller.aclose)
        return caller

    async def to_the_end(self) -> Outcome:
        try:
            async with asyncio.TaskGroup() as self.tasks:
                for node in reads(self.graph):
                    if isinstance(node.source, Source):
                        async for record in arrivals(node):
                            await self.emit(node, record)
                        await self.advance(node, END_MS)
            for name in list(self.pending):
                await self.flush(name)
            await self.writers.commit()
        except ExceptionGroup as group:  # except* would raise a group again
            raise next((e for e in group.exceptions if isinstance(e, SageError)), group) from None
        self.outcome.merged.update(merged_counts(self.callers))
        return self.outcome

    async def emit(self, node: Node, record: Record, *, late: bool = False) -> None:
        for user in self.users[node.name]:
            if isinstance(user, Late) is late:
                await self.step(user, record, node.name)

    async def pass_on(self, node: Node, made: Record | FailedRecord) -> None:
        if isinstance(made, FailedRecord):
            self.outcome.failed.append(made)
        else:
            await self.emit(node, made)

    async def step(self, node: Node, record: Record, upstream: str) -> None:
        match node:
            case FlatMap():
                out = catch_failure(
                    node.name, record, lambda: flat_map(node, record), node.function
                )
                for made in (out,) if isinstance(out, FailedRecord) else out:
                    await self.pass_on(node, made)
            case Call():
                await self.slots[node.name].acquire()
                before, done = self.last.get(node.name), asyncio.Event()
                self.last[node.name] = done
                turn = before if node.ordered else None
                self.start(node, self.call(node, record, turn, done))
            case Batch() | MapBatches():
                batch = self.pending.setdefault(node.name, [])
                batch.append(record)
                if len(batch) >= node.items_max:
                    await self.flush(node.name)
            case Union():
                await self.emit(node, record)
            case Write():
                await self.write(node, [record])
            case Read():
                raise AssertionError("a source has no input")
            case _:
                await self.stateful(node, record, upstream)

    async def stateful(self, node: StatefulNode, record: Record, upstream: str) -> None:
        for made in self.state.process(node, record, upstream):
            match made:
                case FailedRecord():
                    self.outcome.failed.append(made)
                case LateRecord(late):
                    assert isinstance(node, Window | TimeJoin)
                    if any(isinstance(user, Late) for user in self.users[node.name]):
                        await self.emit(node, late, late=True)
                    elif node.late == "dead_letter":
                        self.outcome.failed.append(FailedRecord(late, node.name, late_reason(node)))
                case Record():
                    await self.emit(node, made)
                    if isinstance(node, TimeNode):
                        watermark_ms = self.state.watermark_ms(node, made)
                        if watermark_ms is not None:
                            await self.advance(node, watermark_ms)

    async def advance(self, node: Node, watermark_ms: int) -> None:
        """The watermark of the output of ``node``, behind all of its records so far."""
        for user in self.users[node.name]:
            match user:
                case Union():
                    inputs = self.union_ms[user.name]
                    inputs[node.name] = watermark_ms
                    await self.advance(user, min(inputs.values()))
                case EventTime() | ProcessingTime() if watermark_ms != END_MS:
                    pass  # it makes its own
                case Window() | Join() | TemporalJoin():
                    results, own_ms = self.state.advance(user, node.name, watermark_ms)
                    for result in results:
                        await self.pass_on(user, result)
                    await self.advance(user, own_ms)
                case RateLimit():
                    self.state.passed[user.name].advance(watermark_ms)
                    await self.advance(user, watermark_ms)
                case BroadcastJoin() if node.name == user.right:
                    pass  # its watermarks are those of the other input
                case Write():
                    self.writers.advance(user, watermark_ms)
                case MapBatches():
                    await self.flush(user.name)
                    await self.advance(user, watermark_ms)
                case Call() if earlier := frozenset(self.in_flight[user.name]):
                    # Later watermarks wait for this one, which waits for all before it.
                    self.in_flight[user.name] = set()
                    self.start(user, self.advance_after(earlier, user, watermark_ms))
                case _:
                    await self.advance(user, watermark_ms)

    async def advance_after(
        self, earlier: frozenset[asyncio.Task[None]], node: Call, watermark_ms: int
    ) -> None:
        """The watermark waits for the calls of the records before it."""
        await asyncio.wait(earlier)
        await self.advance(node, watermark_ms)

    def start(self, node: Call, work: Coroutine[None, None, None]) -> None:
        task = self.tasks.create_task(work)
        self.in_flight[node.name].add(task)
        task.add_done_callback(lambda done: self.in_flight[node.name].discard(done))

    async def call(
        self, node: Call, record: Record, turn: asyncio.Event | None, done: asyncio.Event
    ) -> None:
        try:
            out = await self.callers[node.name].call(record)
            if turn is not None:
                await turn.wait()
        finally:
            self.slots[node.name].release()
        await self.pass_on(node, out)
        done.set()

    async def flush(self, name: str) -> None:
        node, records = self.graph.by_name[name], self.pending.pop(name, [])
        if isinstance(node, MapBatches):
            async with self.locks[name]:  # a function is called by one thread at a time
                for made in await asyncio.to_thread(map_batch, node, records):
                    await self.pass_on(node, made)
            return
        for user in self.users[name]:
            assert isinstance(user, Write)
            await self.write(user, records)

    async def write(self, node: Write, records: list[Record]) -> None:
        refused = await self.writers.write(node, records)
        lost = {refusal.record.id for refusal in refused}
        upserts = (record for record in records if record.kind == "upsert")
        self.outcome.written[node.name] += [row for row in upserts if row.id not in lost]
        self.outcome.failed.extend(FailedRecord(r.record, node.name, r.reason) for r in refused)
