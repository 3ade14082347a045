"""The command ``sage-gateway``: put the parts together and serve until SIGTERM or SIGINT."""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from sage_flink.common import ConfigError, SageError, Settings
from sage_flink.tsdb import Bucket
from sage_gateway.autoscaling.flink_jobs import FlinkJobs
from sage_gateway.autoscaling.loop import Autoscaler
from sage_gateway.batches import BatchService
from sage_gateway.cache import Cache
from sage_gateway.cache.response_cache import store_of
from sage_gateway.config import presets
from sage_gateway.config.pool_file import chosen_file, load
from sage_gateway.config.pool_spec import PoolSpec, TraceSpec
from sage_gateway.controlplane.engine_state import Records
from sage_gateway.controlplane.pool import Pool
from sage_gateway.engines import KNOWN, Engine
from sage_gateway.forwarding.forwarder import Proxy
from sage_gateway.http import admin_api
from sage_gateway.http.asgi_app import Front
from sage_gateway.idempotency import Ledger
from sage_gateway.inference.request_pipeline import Accounted
from sage_gateway.inference.service import Service
from sage_gateway.observability import logs
from sage_gateway.observability.logs import RequestLog
from sage_gateway.observability.metrics import Metrics
from sage_gateway.observability.tracing import tracing
from sage_gateway.pipelines import flow_pipeline, registry
from sage_gateway.pipelines.pool_client import Transport
from sage_gateway.replay import Recorder
from sage_gateway.replay.trace import head_of
from sage_gateway.storage.points import BUCKET, Points
from sage_gateway.tenants import Keys, Tenants, local_key
from sage_gateway.tenants.stores import store
from sage_gateway.tenants.usage_points import UsagePoints
from sage_gateway.vector_stores.search import Open, Searches, open_collection

STOP_S = 10
YOUNG_MAX = 20_000


def build(
    settings: Settings,
    spec: PoolSpec,
    keys: Keys,
    *,
    engines: Mapping[str, Engine] = KNOWN,
    open_store: Open = open_collection,
    factories: Mapping[str, registry.Factory] = flow_pipeline.FACTORIES,
    records: Records | None = None,
    bucket: Bucket = BUCKET,
    requests: RequestLog | None = None,
) -> Front:
    """The gateway as an ASGI callable; its lifespan starts and ends the engines.

    With ``records`` engines outlive a gateway that is killed.

    Raises:
        ConfigError: a model's weights or an engine's environment are not there.
    """
    folder = settings.home / "logs"
    pool = Pool(spec, engines, models=settings.models, logs=folder, records=records)
    proxy = Proxy()
    searches = Searches(open_store)
    metrics = Metrics(pool, requests)
    ledger = Ledger(spec.ledger, settings.home / "data" / "gateway", metrics.registry)
    service = Service(pool, proxy, searches, metrics)
    service.recorder = recorder = _recorder(spec)
    service.tracing = traces = tracing()
    tenants = Tenants(keys, store(spec.ledger, settings.home / "data" / "gateway"), service)
    points = Points(bucket, metrics.registry)
    usage = UsagePoints(tenants, points.add)
    autoscaler = Autoscaler(
        pool.models, pool, points, FlinkJobs(settings.flink_url), metrics.registry
    )
    service.mounts.update(registry.load(settings, Transport(service), factories))
    cache = Cache(spec.cache, store_of(spec.cache, spec.ledger), metrics.registry)
    accounted = Accounted(tenants, service, ledger, cache)
    batches = BatchService(
        spec.batches,
        settings.home / "data" / "gateway",
        send=accounted.line,
        is_known_model=service.knows,
        registry=metrics.registry,
    )

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await proxy.open()
        await ledger.open()
        await tenants.open()
        await pool.start()
        points.open()
        if recorder is not None:
            recorder.open()
        await autoscaler.open()
        await usage.open()
        await batches.open()
        try:
            yield
        finally:
            await batches.close()
            await autoscaler.close()
            await usage.close()
            await asyncio.to_thread(points.close)
            if recorder is not None:
                await asyncio.to_thread(recorder.close)
            await ledger.close()
            await cache.close()
            await tenants.close()
            await pool.close()
            await proxy.close()
            searches.close()
            if traces is not None:
                await asyncio.to_thread(traces.close)

    return Front(
        tenants,
        service,
        accounted,
        admin_api.build(service, tenants, batches, autoscaler, lifespan),
    )


def _recorder(spec: PoolSpec) -> Recorder | None:
    named = os.environ.get("SAGE_POOL_TRACE")
    trace = TraceSpec(path=Path(named)) if named else spec.trace
    return Recorder(trace.path, head_of(spec, trace.sample)) if trace else None


def serve(front: Front, listener: socket.socket) -> None:
    """Answer at ``listener`` until a signal; then finish what is in hand, ``STOP_S`` at most."""
    config = uvicorn.Config(
        front,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_S,
    )
    # What is here stays. To look through its 80,000 objects, which a full collection would do again
    # and again, stops every request for a tenth of a second. Of what comes later little is garbage
    # that only a collection finds: one every 700 objects, as by default, took 3 % of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX)
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    """Read the arguments, check everything that can be checked, serve."""
    args = _arguments()
    logs.configure(args.log)
    requests = RequestLog(every=args.log_requests)
    with contextlib.ExitStack() as held:
        try:
            settings = Settings.load()
            given = presets.path(args.preset) if args.preset else args.pool
            spec = load(chosen_file(given, settings.home), KNOWN)
            listener = held.enter_context(listen(args.host, args.port))
            host, port = listener.getsockname()[:2]
            records = Records(settings.home / "run" / f"gateway-{port}")
            kept = records if records.open() else None
            keys = Keys.of(local_key(settings))
            front = build(settings, spec, keys, records=kept, requests=requests)
        except SageError as error:
            sys.exit(f"sage-gateway: {error}")
        held.callback(records.close)  # where a second SIGINT kept the pool from it
        held.enter_context(contextlib.suppress(KeyboardInterrupt))
        logging.getLogger("sage.gateway").info("http://%s:%d", host, port)
        serve(front, listener)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sage-gateway", description="The model pool.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    port = os.environ.get("SAGE_GATEWAY_PORT", "8888")
    parser.add_argument("--port", type=int, default=port, help="port (%(default)s)")
    pool = parser.add_mutually_exclusive_group()
    pool.add_argument("--pool", type=Path, help="pool.yaml to use")
    pool.add_argument("--preset", help=f"a shipped one: {', '.join(presets.NAMES)}")
    parser.add_argument("--log", choices=["text", "json"], default="text", help="form of log lines")
    parser.add_argument("--log-requests", action="store_true", help="a line for every request")
    return parser.parse_args()


def listen(host: str, port: int) -> socket.socket:
    """A bound socket: a port in use is found before any engine starts.

    The protocol is named, because asyncio turns Nagle's delay (44 ms an answer) off only then.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ConfigError(
            f"cannot listen at {host}:{port} ({error}); give --port another one"
        ) from error
    listener.listen(2048)
    return listener


if __name__ == "__main__":
    main()
