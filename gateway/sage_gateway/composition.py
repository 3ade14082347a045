"""Composition of one gateway: which object gets which, and in which order they open and close."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from sage_flink.common import Settings
from sage_flink.tsdb import Bucket
from sage_gateway.autoscaling.flink_jobs import FlinkJobs
from sage_gateway.autoscaling.loop import Autoscaler
from sage_gateway.batches import BatchService
from sage_gateway.cache import EmbeddingCache, ResponseCache
from sage_gateway.cache.store_protocol import CacheStore
from sage_gateway.cache.stores import response_store, vector_store
from sage_gateway.config.pool_spec import PoolSpec, TraceSpec
from sage_gateway.controlplane.engine_state import EngineStateStore
from sage_gateway.controlplane.model_catalog import ModelCatalog
from sage_gateway.controlplane.pool import Pool
from sage_gateway.engines import KNOWN, Engine
from sage_gateway.forwarding.forwarder import Forwarder
from sage_gateway.http import admin_api
from sage_gateway.http.asgi_app import GatewayApp
from sage_gateway.idempotency import Idempotency
from sage_gateway.inference.inference import Inference
from sage_gateway.inference.model_inference import ModelInference
from sage_gateway.inference.request_pipeline import BackgroundRequests, RequestPipeline
from sage_gateway.models.fingerprints import ModelFingerprints
from sage_gateway.observability.logs import RequestLog
from sage_gateway.observability.metrics import Metrics
from sage_gateway.observability.request_tracker import RequestTracking
from sage_gateway.observability.tracing import tracing
from sage_gateway.pipelines import flow_pipeline, registry
from sage_gateway.pipelines.served_pipeline import ServedPipeline
from sage_gateway.replay import Recorder
from sage_gateway.replay.trace import header_of
from sage_gateway.requests.request import Handler
from sage_gateway.responses.responses_api import ResponsesApi
from sage_gateway.storage.points import BUCKET, Points
from sage_gateway.tenants import Keys, Tenants
from sage_gateway.tenants.quota import Quota
from sage_gateway.tenants.stores import store
from sage_gateway.tenants.usage_points import UsagePoints
from sage_gateway.vector_stores.catalog import StoreCatalog
from sage_gateway.vector_stores.row_writer import CONFIGURED, Collections
from sage_gateway.vector_stores.search import Open, VectorSearch, open_collection
from sage_gateway.vector_stores.service import VectorStoreService


@dataclass(frozen=True, slots=True)
class InferenceParts:
    """What answers a request once it may be answered."""

    tracking: RequestTracking
    forwarder: Forwarder
    stores: StoreCatalog
    search: VectorSearch
    pipelines: registry.ServedPipelines
    inference: Inference


@dataclass(frozen=True, slots=True)
class AccountingParts:
    """The handlers around inference, and ``handler``, which calls them in their order."""

    tenants: Tenants
    idempotency: Idempotency
    cache: ResponseCache
    vectors: EmbeddingCache
    cache_stores: tuple[CacheStore, ...]
    handler: Handler


@dataclass(frozen=True, slots=True)
class BackgroundParts:
    """What works next to the requests."""

    points: Points
    usage: UsagePoints
    autoscaler: Autoscaler
    batches: BatchService


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway. ``asgi`` serves it; its lifespan opens and closes the parts."""

    pool: Pool
    inference: InferenceParts
    accounting: AccountingParts
    background: BackgroundParts
    vector_stores: VectorStoreService
    asgi: GatewayApp


def build(
    settings: Settings,
    spec: PoolSpec,
    keys: Keys,
    *,
    engines: Mapping[str, Engine] = KNOWN,
    open_store: Open = open_collection,
    collections: Collections = CONFIGURED,
    factories: Mapping[str, registry.Factory] = flow_pipeline.FACTORIES,
    records: EngineStateStore | None = None,
    bucket: Bucket = BUCKET,
    requests: RequestLog | None = None,
) -> Gateway:
    """The gateway of ``spec``; with ``records`` engines outlive a gateway that is killed.

    Raises:
        ConfigError: a model's weights or an engine's environment are not there.
    """
    logs = settings.home / "logs"
    pool = Pool(spec, engines, models=settings.models, logs=logs, store=records)
    catalog = ModelCatalog(pool, tuple(factories))
    metrics = Metrics(pool)
    tracking = RequestTracking(metrics, requests, recorder=_recorder(spec), tracing=tracing())
    data, pipelines = _data(settings), registry.load(settings, factories)
    inference = _inference(data, catalog, tracking, open_store, pipelines)
    accounting = _accounting(spec, data, keys, catalog, inference, metrics.registry)
    background = _background(settings, bucket, catalog, metrics.registry, accounting)
    stores = _vector_stores(settings, pool, inference.stores, collections, accounting, background)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with _open(pool, inference, accounting, background, stores):
            yield

    asgi = _asgi(catalog, metrics, accounting, background, stores, lifespan)
    return Gateway(pool, inference, accounting, background, stores, asgi)


def _asgi(
    catalog: ModelCatalog,
    metrics: Metrics,
    accounting: AccountingParts,
    background: BackgroundParts,
    stores: VectorStoreService,
    lifespan: admin_api.Lifespan,
) -> GatewayApp:
    spec, tenants = catalog.pool.spec, accounting.tenants
    admin = admin_api.build(
        catalog,
        metrics,
        tenants,
        background.batches,
        stores,
        background.autoscaler,
        accounting.cache_stores,
        lifespan,
    )
    file_bytes_max = spec.batches.file_bytes_max
    return GatewayApp(
        tenants, accounting.handler, admin, file_bytes_max=file_bytes_max, origins=spec.origins
    )


def _inference(
    data: Path,
    catalog: ModelCatalog,
    tracking: RequestTracking,
    open_store: Open,
    pipelines: Mapping[str, ServedPipeline],
) -> InferenceParts:
    forwarder = Forwarder()
    models = ModelInference(catalog, forwarder)
    stores = StoreCatalog(data / "vector_stores.sqlite")
    search = VectorSearch(open_store, stores, catalog.pool, Inference(tracking, models))
    without_pipelines = Inference(tracking, models, search=search)
    served = registry.ServedPipelines(pipelines, without_pipelines)
    inference = Inference(tracking, models, search=search, pipelines=served)
    return InferenceParts(tracking, forwarder, stores, search, served, inference)


def _accounting(
    spec: PoolSpec,
    data: Path,
    keys: Keys,
    catalog: ModelCatalog,
    parts: InferenceParts,
    metrics: CollectorRegistry,
) -> AccountingParts:
    inference, tenants = parts.inference, Tenants(keys, store(spec.ledger, data))
    quota = Quota(
        tenants, spec.tenants, catalog.pool, metrics, inference, pipelines=catalog.pipelines
    )
    idempotency = Idempotency(spec.ledger, data, metrics, quota)
    fingerprints = ModelFingerprints(catalog.pool.find)
    stores = (response_store(spec.cache, spec.ledger), vector_store(spec.cache, data))
    vectors = EmbeddingCache(stores[1], fingerprints, metrics, idempotency)
    cache = ResponseCache(spec.cache, stores[0], metrics, vectors)
    handler = RequestPipeline(ResponsesApi(cache), inference, parts.tracking)
    return AccountingParts(tenants, idempotency, cache, vectors, stores, handler)


def _background(
    settings: Settings,
    bucket: Bucket,
    catalog: ModelCatalog,
    metrics: CollectorRegistry,
    accounting: AccountingParts,
) -> BackgroundParts:
    points = Points(bucket, metrics)
    pool, flink = catalog.pool, FlinkJobs(settings.flink_url)
    requests = BackgroundRequests(accounting.tenants.keys, accounting.handler, job="batches")
    batches = BatchService(
        pool.spec.batches,
        _data(settings),
        send=requests.answer,
        is_known_model=catalog.knows,
        registry=metrics,
    )
    return BackgroundParts(
        points,
        UsagePoints(accounting.tenants, points.add),
        Autoscaler(pool.models, pool, points, flink, metrics),
        batches,
    )


def _vector_stores(
    settings: Settings,
    pool: Pool,
    stores: StoreCatalog,
    collections: Collections,
    accounting: AccountingParts,
    background: BackgroundParts,
) -> VectorStoreService:
    requests = BackgroundRequests(accounting.tenants.keys, accounting.handler, job="vector_stores")
    return VectorStoreService(
        stores,
        background.batches,
        pool,
        collections=collections,
        send=requests.answer,
        folder=_data(settings),
        models=settings.models,
    )


@contextlib.asynccontextmanager
async def _open(
    pool: Pool,
    inference: InferenceParts,
    accounting: AccountingParts,
    background: BackgroundParts,
    vector_stores: VectorStoreService,
) -> AsyncIterator[None]:
    """Opens all parts; closes them in the reverse order: first what still sends requests."""
    async with contextlib.AsyncExitStack() as stack:
        if inference.tracking.tracing is not None:
            stack.push_async_callback(asyncio.to_thread, inference.tracking.tracing.close)
        stack.callback(inference.search.close)
        await inference.forwarder.open()
        stack.push_async_callback(inference.forwarder.close)
        stack.push_async_callback(pool.close)
        await pool.start()
        await accounting.tenants.open()
        stack.push_async_callback(accounting.tenants.close)
        stack.push_async_callback(accounting.cache.close)
        stack.push_async_callback(accounting.vectors.close)
        await accounting.idempotency.open()
        stack.push_async_callback(accounting.idempotency.close)
        if inference.tracking.recorder is not None:
            inference.tracking.recorder.open()
            stack.push_async_callback(asyncio.to_thread, inference.tracking.recorder.close)
        background.points.open()
        stack.push_async_callback(asyncio.to_thread, background.points.close)
        parts = (background.usage, background.autoscaler, background.batches, vector_stores)
        for part in parts:
            await part.open()
            stack.push_async_callback(part.close)
        yield


def _data(settings: Settings) -> Path:
    return settings.home / "data" / "gateway"


def _recorder(spec: PoolSpec) -> Recorder | None:
    named = os.environ.get("SAGE_POOL_TRACE")
    trace = TraceSpec(path=Path(named)) if named else spec.trace
    return Recorder(trace.path, header_of(spec, trace.sample)) if trace else None
