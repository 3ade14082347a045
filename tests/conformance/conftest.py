"""The adapters under test, one line each: the reference unmarked, real servers marked ``service``.

To put a new adapter through the suite of its port, add its line to SOURCES, SINKS, STORES, SERIES,
POOLS, IDEMPOTENCY_STORES or TENANTS; a store with full-text search also to TEXT_STORES of
``text_collections``. An entry of SOURCES is a function of an empty folder that returns the source;
one of SINKS is a context manager of an empty folder that yields a SinkCase (of ``sink_cases``).
"""

import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
)
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from empty_collections import drop_shared, empty_collection, new_collection
from killed_tenants import kill
from minicluster import restore_environment, wait_for_workers
from openai_endpoint import endpoint, serve
from redis_server import redis_server
from sink_cases import SinkCase, kept_in_list, parquet_in, points_into, rows_into

from sage_connectors import files, generator, http_pool
from sage_flink.common import Record
from sage_flink.db import Collection, VectorStore
from sage_flink.flow.call_ports import Pool
from sage_flink.flow.lists import ListSource
from sage_flink.flow.ports import Source
from sage_flink.inference import EchoPool
from sage_flink.tsdb import Bucket, TimeSeriesStore, bucket
from sage_flink.tsdb import memory as series_in_memory
from sage_gateway.idempotency.memory import MemoryIdempotencyStore
from sage_gateway.idempotency.redis import RedisIdempotencyStore
from sage_gateway.idempotency.sqlite import SqliteIdempotencyStore
from sage_gateway.idempotency.store_protocol import IdempotencyStore
from sage_gateway.tenants.memory import MemoryTenantStore
from sage_gateway.tenants.redis import RedisTenantStore
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
    """A collection without rows; on a server other tests have used it before."""
    with empty_collection(request.param, dim=DIM) as spec:
        yield spec


@pytest.fixture(params=STORES)
def new_vectors(request: pytest.FixtureRequest) -> Iterator[Collection]:
    """A collection that does not exist yet."""
    with new_collection(request.param, dim=DIM) as spec:
        yield spec


@pytest.fixture(scope="session", autouse=True)
def shared_collections() -> Iterator[None]:
    """Drops the collections that the tests of a server share."""
    yield
    drop_shared()


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
    async with serve(endpoint()) as url, http_pool(url, "key", timeout_s=5) as pool:
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


@pytest.fixture
def restored_environment() -> Iterator[None]:
    """A MiniCluster runs Python steps in this process and marks its environment as a worker's."""
    yield from restore_environment()


@pytest.fixture
def no_worker_left() -> Iterator[None]:
    """Waits for the worker threads: they end with an error, which belongs to this test."""
    yield
    wait_for_workers(30)
