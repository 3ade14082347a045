"""The in-process target: the same graph on asyncio, for tests, notebooks and the gateway.

Bounded: a run ends when its sources end. Records that fail come back in the outcome, and the
graph's dead-letter sink is left alone; a batch is handed on by count, or at the end, whatever its
bytes and age. Nothing survives a crash; that is what Flink is for.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, assert_never, runtime_checkable

from sage_flink.common.errors import PipelineError, PoolError, Rejected, SageError
from sage_flink.common.records import Failed, Record
from sage_flink.flow.calls import embeddings
from sage_flink.flow.calls.caller import Caller
from sage_flink.flow.calls.classification import judged
from sage_flink.flow.check import check
from sage_flink.flow.deletes import in_order
from sage_flink.flow.graph import Batch, Call, FlatMap, Graph, Node, Read, Union, Write, finished
from sage_flink.flow.ports import Pool, Reply, Sink, Source, Writer
from sage_flink.flow.steps import flat_map, guarded

#: Called with (step, text) for each piece of a streamed answer.
OnDelta = Callable[[str, str], Awaitable[None]]


@runtime_checkable
class Streamed(Protocol):
    """A call whose answer can be had in pieces."""

    def request_streamed(self, record: Record) -> bytes:
        """The body that asks for a stream."""

    def pieces(self) -> "Pieces":
        """A collector for one answer."""


class Pieces(Protocol):
    """Collects a streamed answer."""

    def feed(self, chunk: bytes) -> str:
        """The text that ``chunk`` adds; may be empty."""

    def body(self) -> bytes:
        """The whole answer, as the unstreamed request would have had it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the records: upserts written, per sink in order of arrival, or failed."""

    written: dict[str, list[Record]] = field(default_factory=dict)
    failed: list[Failed] = field(default_factory=list)
    #: What the call of a failed record raised last, by record id.
    errors: dict[str, SageError] = field(default_factory=dict)


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

    Raises:
        PipelineError: the graph cannot run in process, or a call has no pool to go to.
        Retryable: a sink did not take a batch; nothing more was read.
    """
    graph = in_order(check(_bound(finished(graph), sources or {}, sinks or {}), "local"))
    if pool is None and any(isinstance(node, Call) for node in graph.nodes):
        raise PipelineError("run: the pipeline calls the model pool; pass pool=http_pool(...)")
    return await _Run(graph, job, pool, on_delta).whole()


def _bound(graph: Graph, sources: Mapping[str, Source], sinks: Mapping[str, Sink]) -> Graph:
    def bind(node: Node) -> Node:
        match node:
            case Read() if node.name in sources:
                return replace(node, source=sources[node.name])
            case Write() if node.name in sinks:
                return replace(node, sink=sinks[node.name])
            case _:
                return node

    if unknown := (sources.keys() | sinks.keys()) - graph.by_name.keys():
        raise PipelineError(f"run: no step is called {', '.join(sorted(unknown))}")
    return replace(graph, nodes=tuple(bind(node) for node in graph.nodes))


class _Run:
    def __init__(self, graph: Graph, job: str, pool: Pool | None, on_delta: OnDelta | None) -> None:
        self.graph, self.job, self.pool, self.on_delta = graph, job, pool, on_delta
        self.users = {node.name: list(graph.users(node.name)) for node in graph.nodes}
        calls = [node for node in graph.nodes if isinstance(node, Call)]
        self.slots = {node.name: asyncio.Semaphore(node.capacity) for node in calls}
        self.callers = {node.name: self.caller(node) for node in calls}
        self.last: dict[str, asyncio.Event] = {}
        self.pending: dict[str, list[Record]] = {}
        self.writers: dict[str, Writer] = {}
        self.outcome = Outcome({n.name: [] for n in graph.nodes if isinstance(n, Write)})

    def caller(self, node: Call) -> Caller:
        assert self.pool is not None
        post, request = self.pool.post, node.spec.request
        if self.on_delta is not None and isinstance(node.spec, Streamed):
            post = _Streaming(node, self.pool, self.on_delta).post
            request = node.spec.request_streamed

        def failed(record: Record, error: SageError) -> None:
            self.outcome.errors[record.id] = error

        return Caller(node, post, job=self.job, request=request, on_failure=failed)

    async def whole(self) -> Outcome:
        try:
            async with asyncio.TaskGroup() as self.tasks:
                for node in self.graph.nodes:
                    if isinstance(node, Read) and isinstance(node.source, Source):
                        for record in node.source.records():
                            await self.emit(node, record)
            for name in list(self.pending):
                await self.flush(name)
        except* SageError as group:
            raise group.exceptions[0] from None
        finally:
            for caller in self.callers.values():
                await caller.aclose()
            for writer in self.writers.values():
                await asyncio.to_thread(writer.close)
        return self.outcome

    async def emit(self, node: Node, record: Record) -> None:
        for user in self.users[node.name]:
            await self.step(user, record)

    async def step(self, node: Node, record: Record) -> None:
        match node:
            case FlatMap():
                out = guarded(node.name, record, lambda: flat_map(node, record))
                if isinstance(out, Failed):
                    self.outcome.failed.append(out)
                else:
                    for made in out:
                        await self.emit(node, made)
            case Call():
                await self.slots[node.name].acquire()
                before, done = self.last.get(node.name), asyncio.Event()
                self.last[node.name] = done
                turn = before if node.ordered else None
                self.tasks.create_task(self.call(node, record, turn, done))
            case Batch():
                gathered = self.pending.setdefault(node.name, [])
                gathered.append(record)
                if len(gathered) >= node.items_max:
                    await self.flush(node.name)
            case Union():
                await self.emit(node, record)
            case Write():
                await self.write(node, [record])
            case Read():
                raise AssertionError("a source has no input")
            case _:
                assert_never(node)

    async def call(
        self, node: Call, record: Record, turn: asyncio.Event | None, done: asyncio.Event
    ) -> None:
        try:
            out = await self.callers[node.name].answer(record)
            if turn is not None:
                await turn.wait()
        finally:
            self.slots[node.name].release()
        if isinstance(out, Failed):
            self.outcome.failed.append(out)
        else:
            await self.emit(node, out)
        done.set()

    async def flush(self, name: str) -> None:
        records = self.pending.pop(name, [])
        for user in self.users[name]:
            assert isinstance(user, Write)
            await self.write(user, records)

    async def write(self, node: Write, records: list[Record]) -> None:
        assert isinstance(node.sink, Sink)
        if node.name not in self.writers:
            self.writers[node.name] = await asyncio.to_thread(node.sink.writer)
        refused = await asyncio.to_thread(self.writers[node.name].write, records)
        lost = {refusal.record.id for refusal in refused}
        upserts = (record for record in records if record.kind == "upsert")
        self.outcome.written[node.name] += [row for row in upserts if row.id not in lost]
        self.outcome.failed.extend(Failed.of(r.record, node.name, r.reason) for r in refused)


class _Streaming:
    """A streamed call's ``post``: the pieces go to ``on_delta``, the whole comes back."""

    def __init__(self, node: Call, pool: Pool, on_delta: OnDelta) -> None:
        self._node, self._pool, self._on_delta = node, pool, on_delta

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        assert isinstance(self._node.spec, Streamed)
        pieces, begun = self._node.spec.pieces(), False
        try:
            async for chunk in self._pool.stream(path, body, headers):
                if text := pieces.feed(chunk):
                    begun = True
                    await self._on_delta(self._node.name, text)
        except PoolError as error:
            if begun:  # asking again would say the same words twice
                raise Rejected(f"the answer broke off: {error}") from error
            raise
        return Reply(200, pieces.body())


async def embed(
    pool: Pool, model: str, texts: Sequence[str], headers: Mapping[str, str] | None = None
) -> list[bytes]:
    """One vector per text, in the order given: little-endian float32 bytes. One request.

    Raises:
        PoolError: the pool answered with an error, or not with one good vector for each text.
    """
    asked = embeddings.request(model, texts)
    tried = judged(await pool.post(embeddings.PATH, asked, headers or {}))
    if tried.error is not None:
        raise tried.error
    slots = embeddings.of_one_size(embeddings.read(model, tried.body, len(texts)), Counter())
    for slot in slots:
        if isinstance(slot, PoolError):
            raise slot
    return [slot for slot in slots if isinstance(slot, bytes)]
