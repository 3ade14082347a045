"""The adapters under test, one line each: the reference unmarked, real servers marked ``service``.

To put a new adapter through the suite of its port, add its line to SOURCES, SINKS, STORES, SERIES,
POOLS, IDEMPOTENCY_STORES or TENANTS. An entry of SOURCES is a function of an empty folder that
returns the source; one of SINKS is a context manager of an empty folder that yields a SinkCase.
"""

import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas
import pytest
from aiohttp import web
from delete_shapes import SHAPED_LIKE_DELETES
from redis_server import redis_server

from sage_connectors import ParquetFiles, files, files_sink, generator, http_pool
from sage_flink.common import Record
from sage_flink.db import Collection, VectorStore, collection
from sage_flink.db import memory as vectors_in_memory
from sage_flink.db.vectors import pack
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.ports import Pool, Sink, Source
from sage_flink.inference import EchoPool
from sage_flink.tsdb import Bucket, TimeSeriesStore, bucket
from sage_flink.tsdb import memory as series_in_memory
from sage_gateway.idempotency.memory import MemoryIdempotencyStore
from sage_gateway.idempotency.redis import RedisIdempotencyStore
from sage_gateway.idempotency.sqlite import SqliteIdempotencyStore
from sage_gateway.idempotency.store_protocol import IdempotencyStore
from sage_gateway.tenants.memory import MemoryTenantStore
from sage_gateway.tenants.redis import LEASE, RedisTenantStore
from sage_gateway.tenants.sqlite import SqliteTenantStore
from sage_gateway.tenants.store_protocol import TenantStore

SERVICE = pytest.mark.service
STORES = [
    pytest.param("memory", id="memory"),
    pytest.param("milvus", id="milvus", marks=SERVICE),
]
SERIES = [
    pytest.param("memory", id="memory"),
    pytest.param("influxdb", id="influxdb", marks=SERVICE),
]
DIM = 8


def list_source(tmp_path: Path) -> Source:
    return ListSource((Record("a", b"1", origin="a"), Record("b", b"2", origin="b")))


def files_source(tmp_path: Path) -> Source:
    """Three files that are read, and three that are skipped."""
    for name in ("a.txt", "b/c.md", "b/d.PDF", ".hidden.txt", "_x/y.txt", "z.bin"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return files(tmp_path)


def generator_source(tmp_path: Path) -> Source:
    return generator(5, per_s=10, out_of_order_s=1.0)


SOURCES = [
    pytest.param(list_source, id="list"),
    pytest.param(files_source, id="files"),
    pytest.param(generator_source, id="generator"),
]


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Source:
    """A source with some records, readable in this process."""
    made: Source = request.param(tmp_path)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that ``files`` of SOURCES reads."""
    files_source(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class SinkCase:
    """A sink, a valid value by number, the number of rows that it holds, and values it refuses.

    A sink that stores any value ``refuses`` none.
    """

    sink: Sink
    value: Callable[[int], Any]
    count: Callable[[], int]
    refuses: tuple[Any, ...] = ()


#: What a sink of mappings with certain fields refuses, such as a database.
NO_ROWS = (None, "text", 7, [], {}, {"vector": "text"}, *SHAPED_LIKE_DELETES)


@contextmanager
def rows_into(store: str, tmp_path: Path) -> Iterator[SinkCase]:
    spec = collection(f"conformance_{uuid.uuid4().hex}", dim=2, store=store)

    def value(n: int) -> Any:
        return {"vector": pack([1.0, n]), "text": f"text {n}", "id": "unused", "doc": "r1"}

    bad = {"vector": pack([1.0])}
    yield SinkCase(spec, value, lambda: spec.open().count(), (*NO_ROWS, bad))
    vectors_in_memory.forget(spec.name)
    if store != "memory":
        spec.open().drop()  # type: ignore[attr-defined]


@contextmanager
def points_into(store: str, tmp_path: Path) -> Iterator[SinkCase]:
    name = f"m{uuid.uuid4().hex}"
    spec = bucket("conformance", store=store)

    def value(n: int) -> Any:
        return {"measurement": name, "tags": {"n": str(n)}, "fields": {"v": float(n)}}

    def count() -> int:
        store = spec.open()
        points = store.count(name)
        store.close()
        return points

    yield SinkCase(spec, value, count, (*NO_ROWS, {"measurement": name, "fields": {}}))
    series_in_memory.forget(spec.name)
    if store != "memory":
        opened = spec.open()
        opened.drop(name)  # type: ignore[attr-defined]
        opened.close()


@contextmanager
def kept_in_list(tmp_path: Path) -> Iterator[SinkCase]:
    sink = ListSink()
    yield SinkCase(sink, lambda n: {"n": n}, lambda: len(sink.rows))


@contextmanager
def parquet_in(tmp_path: Path) -> Iterator[SinkCase]:
    """A record in two batches is in two files: rows are counted by id."""
    sink = files_sink(tmp_path, format="parquet")

    def count() -> int:
        return pandas.read_parquet(tmp_path).id.nunique() if any(tmp_path.iterdir()) else 0

    assert isinstance(sink, ParquetFiles)
    yield SinkCase(sink, lambda n: {"n": n}, count, (float("nan"), {(1, 2): "x"}))


SINKS = [
    pytest.param(kept_in_list, id="list"),
    pytest.param(parquet_in, id="parquet"),
    pytest.param(partial(rows_into, "memory"), id="vectors-memory"),
    pytest.param(partial(rows_into, "milvus"), id="vectors-milvus", marks=SERVICE),
    pytest.param(partial(points_into, "memory"), id="points-memory"),
    pytest.param(partial(points_into, "influxdb"), id="points-influxdb", marks=SERVICE),
]
OpenSink = Callable[[Path], AbstractContextManager[SinkCase]]


@pytest.fixture(params=SINKS)
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SinkCase]:
    """A sink without rows, and what the suite needs to know of it."""
    opened: OpenSink = request.param
    with opened(tmp_path) as made:
        yield made


@pytest.fixture(params=STORES)
def vectors(request: pytest.FixtureRequest) -> Iterator[Collection]:
    """A collection with a name of its own, dropped after the test."""
    spec = collection(f"conformance_{uuid.uuid4().hex}", dim=DIM, store=request.param)
    yield spec
    if request.param == "memory":
        vectors_in_memory.forget(spec.name)
    else:
        spec.open().drop()  # type: ignore[attr-defined]


@pytest.fixture
def store(vectors: Collection) -> Iterator[VectorStore]:
    opened = vectors.open()
    yield opened
    opened.close()


@pytest.fixture(params=SERIES)
def points(request: pytest.FixtureRequest) -> Iterator[Bucket]:
    """A bucket with a name of its own in memory; a shared one on a server."""
    own = f"conformance_{uuid.uuid4().hex}"
    yield bucket(own if request.param == "memory" else "conformance", store=request.param)
    series_in_memory.forget(own)


@pytest.fixture
def measurement(points: Bucket) -> Iterator[str]:
    """A measurement with a name of its own, dropped after the test."""
    name = f"m{uuid.uuid4().hex}"
    yield name
    opened = points.open()
    if hasattr(opened, "drop"):
        opened.drop(name)
    opened.close()


@pytest.fixture
def series(points: Bucket) -> Iterator[TimeSeriesStore]:
    opened = points.open()
    yield opened
    opened.close()


OpenPool = Callable[[], AbstractAsyncContextManager[Pool]]


@asynccontextmanager
async def over_http() -> AsyncIterator[Pool]:
    """An HttpPool in front of a small endpoint that answers as OpenAI's does."""
    async with serve(_endpoint()) as url, http_pool(url, "key", timeout_s=5) as pool:
        yield pool


@asynccontextmanager
async def echo() -> AsyncIterator[Pool]:
    """The reference, in this process."""
    yield EchoPool()


POOLS: list[Any] = [pytest.param(over_http, id="http"), pytest.param(echo, id="echo")]


@pytest.fixture(params=POOLS)
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[Pool]:
    opened: OpenPool = request.param
    async with opened() as made:
        yield made


@asynccontextmanager
async def serve(app: web.Application) -> AsyncIterator[str]:
    """The application on a free port; its URL."""
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def _endpoint() -> web.Application:
    async def embeddings(request: web.Request) -> web.Response:
        body = await request.json()
        rows = [
            {"object": "embedding", "index": index, "embedding": "AACAPwAAAAA="}
            for index, _ in enumerate(body["input"])
        ]
        return web.json_response({"object": "list", "data": rows, "model": body["model"]})

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        said = body["messages"][-1]["content"]
        if not body.get("stream"):
            message = {"role": "assistant", "content": said}
            return web.json_response({"choices": [{"index": 0, "message": message}]})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for word in said.split():
            delta = web.json_response({"choices": [{"index": 0, "delta": {"content": word}}]}).body
            assert isinstance(delta, bytes)
            await answer.write(b"data: " + delta + b"\n\n")
        await answer.write(b"data: [DONE]\n\n")
        return answer

    async def not_found(request: web.Request) -> web.Response:
        message = {"error": {"message": f"no such path: {request.path}"}}
        return web.json_response(message, status=404)

    app = web.Application()
    app.router.add_post("/v1/embeddings", embeddings)
    app.router.add_post("/v1/chat/completions", chat)
    app.router.add_post("/{path:.*}", not_found)
    return app


IDEMPOTENCY_STORES = [
    pytest.param("memory", id="memory"),
    pytest.param("sqlite", id="sqlite"),
    pytest.param("redis", id="redis", marks=SERVICE),
]
OpenIdempotencyStore = Callable[..., AbstractAsyncContextManager[IdempotencyStore]]


@pytest.fixture(params=IDEMPOTENCY_STORES)
def open_store(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenIdempotencyStore]:
    """Opens the same empty store repeatedly: ``async with open_store(ttl_s=..., bytes_max=...)``.

    The store in memory is empty each time.
    """
    with contextlib.ExitStack() as stack:
        url = ""
        if request.param == "redis":
            url = stack.enter_context(redis_server(tmp_path_factory.mktemp("redis")))

        @asynccontextmanager
        async def reopen(
            *, ttl_s: float = 60.0, bytes_max: int = 1 << 20
        ) -> AsyncIterator[IdempotencyStore]:
            store: IdempotencyStore
            match request.param:
                case "memory":
                    store = MemoryIdempotencyStore(ttl_s=ttl_s, bytes_max=bytes_max)
                case "sqlite":
                    path = tmp_path / "ledger.sqlite"
                    store = SqliteIdempotencyStore(path, ttl_s=ttl_s, bytes_max=bytes_max)
                case _:
                    store = RedisIdempotencyStore(
                        url, ttl_s=ttl_s, bytes_max=bytes_max, lease_s=5.0, timeout_s=20.0
                    )
            await store.open()
            try:
                yield store
            finally:
                await store.close()

        yield reopen


TENANTS = [
    pytest.param("memory", id="memory"),
    pytest.param("sqlite", id="sqlite"),
    pytest.param("redis", id="redis", marks=SERVICE),
]
OpenTenants = Callable[..., AbstractAsyncContextManager[TenantStore]]


@pytest.fixture(params=TENANTS)
def tenants(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenTenants]:
    """Opens one store repeatedly: ``async with tenants(clock=...)``.

    ``killed``: its gateway is killed in the end. The store in memory is empty each time. A second
    store that is open at the same time belongs to another gateway, if gateways can share the store.
    """
    with contextlib.ExitStack() as stack:
        url = ""
        if request.param == "redis":
            url = stack.enter_context(redis_server(tmp_path_factory.mktemp("redis")))

        @asynccontextmanager
        async def reopen(
            *, clock: Callable[[], float] = time.time, killed: bool = False
        ) -> AsyncIterator[TenantStore]:
            store: TenantStore
            match request.param:
                case "memory":
                    store = MemoryTenantStore(clock=clock)
                case "sqlite":
                    store = SqliteTenantStore(tmp_path / "tenants.sqlite", clock=clock)
                case _:
                    store = RedisTenantStore(url, lease_s=5.0, timeout_s=20.0, clock=clock)
            await store.open()
            try:
                yield store
            finally:
                await (kill(store) if killed else store.close())

        yield reopen


async def kill(store: TenantStore) -> None:
    """End a store as ``kill -9`` does: the kernel has its log, its lock and its lease end."""
    match store:
        case SqliteTenantStore():
            await store._log.close()
            await store._thread(store._tables.close)
            await store._thread.close()
        case RedisTenantStore():
            assert store._renewing is not None
            store._renewing.cancel()
            async with store._redis.client() as client:
                await client.delete(LEASE + store._life)
            await store._redis.close()
