"""Serves one gateway app on the loop of the test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import uvicorn
from uvicorn.server import ServerState

from sage_gateway.app import server_config
from sage_gateway.http.asgi_app import GatewayApp
from sage_gateway.http.gateway_protocol import GatewayProtocol


class AppServer(NamedTuple):
    """A port on loopback, and the tasks that answer requests."""

    port: int
    tasks: set[asyncio.Task[None]]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def serve_app(
    app: GatewayApp, protocol: type[GatewayProtocol] = GatewayProtocol, **tls: Any
) -> AsyncIterator[AppServer]:
    """``app`` behind a port, without its lifespan; connections are closed at the end."""
    config: uvicorn.Config = server_config(app, **tls)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: protocol(config, state, {}), "127.0.0.1", 0, ssl=config.ssl
    )
    try:
        yield AppServer(server.sockets[0].getsockname()[1], state.tasks)
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)
