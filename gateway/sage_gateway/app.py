"""The command ``sage-gateway``: put the parts together and serve until SIGTERM or SIGINT."""

import argparse
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
from sage_gateway import cold, mounts, pipelines
from sage_gateway.engines import ENGINES, Engine
from sage_gateway.front import Front
from sage_gateway.ledger import Ledger
from sage_gateway.metrics import Metrics
from sage_gateway.pool import Pool
from sage_gateway.pool_spec import PoolSpec, chosen_file, load
from sage_gateway.proxy import Proxy
from sage_gateway.search import Open, Searches, open_collection
from sage_gateway.service import Service
from sage_gateway.tenants import Keys, Tenants, local_key
from sage_gateway.tenants.stores import store
from sage_gateway.transport import Transport

STOP_S = 10


def build(
    settings: Settings,
    spec: PoolSpec,
    keys: Keys,
    *,
    engines: Mapping[str, Engine] = ENGINES,
    open_store: Open = open_collection,
    factories: Mapping[str, mounts.Factory] = pipelines.FACTORIES,
) -> Front:
    """The gateway as an ASGI callable; its lifespan starts and ends the engines.

    Raises:
        ConfigError: a model's weights or an engine's environment are not there.
    """
    pool = Pool(spec, engines, models=settings.models, logs=settings.home / "logs")
    proxy = Proxy()
    searches = Searches(open_store)
    metrics = Metrics(pool)
    ledger = Ledger(spec.ledger, settings.home / "data" / "gateway", metrics.registry)
    service = Service(pool, proxy, searches, metrics)
    tenants = Tenants(keys, store(spec.ledger, settings.home / "data" / "gateway"), service)
    service.mounts.update(mounts.load(settings, Transport(service), factories))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await proxy.open()
        await ledger.open()
        await tenants.open()
        await pool.start()
        try:
            yield
        finally:
            await ledger.close()
            await tenants.close()
            await pool.close()
            await proxy.close()
            searches.close()

    return Front(tenants, service, ledger, cold.build(service, tenants, lifespan))


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
    # and again, stops every request for a tenth of a second.
    gc.collect()
    gc.freeze()
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    """Read the arguments, check everything that can be checked, serve."""
    args = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        settings = Settings.load()
        spec = load(chosen_file(args.pool, settings.home), ENGINES)
        front = build(settings, spec, Keys.of(local_key(settings)))
        listener = listen(args.host, args.port)
    except SageError as error:
        sys.exit(f"sage-gateway: {error}")
    logging.getLogger("sage.gateway").info("http://%s:%d", *listener.getsockname()[:2])
    with contextlib.suppress(KeyboardInterrupt):
        serve(front, listener)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sage-gateway", description="The model pool.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    port = os.environ.get("SAGE_GATEWAY_PORT", "8888")
    parser.add_argument("--port", type=int, default=port, help="port (%(default)s)")
    parser.add_argument("--pool", type=Path, help="pool.yaml to use")
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
