"""The command ``sage-gateway``: reads its configuration and serves until SIGTERM or SIGINT."""

import argparse
import contextlib
import gc
import logging
import os
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

import uvicorn

from sage_flink.common import ConfigError, SageError, Settings
from sage_gateway.composition import build
from sage_gateway.config import presets
from sage_gateway.config.pool_file import choose_file, load
from sage_gateway.controlplane.engine_state import EngineStateStore
from sage_gateway.engines import KNOWN
from sage_gateway.http.asgi_app import GatewayApp
from sage_gateway.http.gateway_protocol import GatewayProtocol
from sage_gateway.observability import logs
from sage_gateway.observability.logs import RequestLog
from sage_gateway.tenants import Keys, local_key

STOP_S = 10
YOUNG_MAX = 20_000


def server_config(app: GatewayApp, **more: Any) -> uvicorn.Config:
    """The server of ``app``, with ``more`` of uvicorn's settings."""
    return uvicorn.Config(
        app,
        http=GatewayProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_S,
        **more,
    )


def serve(app: GatewayApp, listener: socket.socket, **tls: Any) -> None:
    """Serve at ``listener`` until a signal; then complete the open requests, ``STOP_S`` at most.

    ``tls``: uvicorn's settings for https.
    """
    config = server_config(app, loop="uvloop", **tls)
    # The 80,000 objects of start-up stay. A full collection would scan them again and again, and
    # each scan stops every request for a tenth of a second. Later objects are rarely garbage that
    # only a collection finds: one every 700 objects, the default, took 3 % of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX)
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    """Read the arguments, check the whole configuration, serve."""
    args = _arguments()
    logs.configure(args.log)
    requests = RequestLog(every=args.log_requests)
    with contextlib.ExitStack() as resources:
        try:
            settings = Settings.load()
            tls = tls_settings(args.ssl_certfile, args.ssl_keyfile)
            named = presets.path(args.preset) if args.preset else args.pool
            spec = load(choose_file(named, settings.home), KNOWN)
            listener = resources.enter_context(listen(args.host, args.port))
            host, port = listener.getsockname()[:2]
            records = EngineStateStore(settings.home / "run" / f"gateway-{port}")
            engine_state = records if records.open() else None
            keys = Keys.of(local_key(settings))
            gateway = build(settings, spec, keys, records=engine_state, requests=requests)
        except SageError as error:
            sys.exit(f"sage-gateway: {error}")
        resources.callback(records.close)  # after a second SIGINT the pool does not close it
        resources.enter_context(contextlib.suppress(KeyboardInterrupt))
        scheme = "https" if tls else "http"
        logging.getLogger("sage.gateway").info("%s://%s:%d", scheme, host, port)
        serve(gateway.asgi, listener, **tls)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sage-gateway", description="The model pool.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    port = os.environ.get("SAGE_GATEWAY_PORT", "8888")
    parser.add_argument("--port", type=int, default=port, help="port (%(default)s)")
    certificate = "serve https with this certificate, a PEM file"
    parser.add_argument("--ssl-certfile", type=Path, help=certificate)
    key = "its key, a PEM file; by default it is in the file of the certificate"
    parser.add_argument("--ssl-keyfile", type=Path, help=key)
    pool = parser.add_mutually_exclusive_group()
    pool.add_argument("--pool", type=Path, help="pool.yaml to use")
    pool.add_argument("--preset", help=f"a shipped one: {', '.join(presets.NAMES)}")
    parser.add_argument("--log", choices=["text", "json"], default="text", help="form of log lines")
    parser.add_argument("--log-requests", action="store_true", help="a line for every request")
    return parser.parse_args()


def tls_settings(certificate: Path | None, key: Path | None) -> dict[str, Any]:
    """uvicorn's settings for https; none without a certificate.

    Raises:
        ConfigError: the files are not a certificate and its key, or there is only a key.
    """
    if certificate is None:
        if key is not None:
            raise ConfigError("--ssl-keyfile needs --ssl-certfile as well")
        return {}
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except OSError as error:
        files = f"--ssl-certfile {certificate}" + (f", --ssl-keyfile {key}" if key else "")
        raise ConfigError(f"{files}: no certificate with its key ({error})") from error
    return {"ssl_certfile": certificate, "ssl_keyfile": key}


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
