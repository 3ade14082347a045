"""A gateway whose handler repeats the message of a request, and raw connections to it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import orjson
from app_server import serve_app

from sage_gateway.http.asgi_app import GatewayApp
from sage_gateway.http.gateway_protocol import GatewayProtocol
from sage_gateway.requests.request import Request
from sage_gateway.requests.response import DONE, Response, StreamingResponse
from sage_gateway.tenants import Keys, Tenants
from sage_gateway.tenants.memory import MemoryTenantStore

KEY = "sk-sage-test"
CHAT = "/v1/chat/completions"
EVENT = b'data: {"choices":[]}\n\n'


class Echo:
    """Answers with the request's message, after the seconds in its field ``user``."""

    def __init__(self) -> None:
        self.requests = 0

    async def handle(self, request: Request) -> Response | StreamingResponse:
        self.requests += 1
        if request.invalid is not None:
            raise request.invalid
        fields = request.fields()
        if fields["messages"][0]["content"] == "fail":
            raise RuntimeError("a bug")
        await asyncio.sleep(float(fields.get("user", "0")))
        if not fields.get("stream"):
            return Response(200, fields["messages"][0]["content"].encode())
        events = self._events()
        return StreamingResponse(events, events.aclose)

    async def _events(self) -> AsyncIterator[bytes]:
        yield EVENT
        yield DONE


async def admin(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"admin"})


class Client:
    """A connection to a gateway whose handler is an :class:`Echo`."""

    def __init__(
        self, echo: Echo, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.echo, self.reader, self.writer = echo, reader, writer

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    async def answer(self) -> tuple[int, bytes, bytes]:
        """Status, head and body of the next answer; its body has a length."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head[9:12]), head, await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        """All bytes up to the end of the connection."""
        return await asyncio.wait_for(self.reader.read(), 10)


@contextlib.asynccontextmanager
async def connect(protocol: type[GatewayProtocol] = GatewayProtocol) -> AsyncIterator[Client]:
    echo = Echo()
    tenants = Tenants(Keys.of(KEY), MemoryTenantStore())
    app = GatewayApp(tenants, echo, admin, file_bytes_max=1)
    async with serve_app(app, protocol) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        yield Client(echo, reader, writer)
        writer.close()


def chat(content: str = "hi", *lines: bytes, version: bytes = b"1.1", **more: Any) -> bytes:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": content}], **more})
    head = [
        b"POST %b HTTP/%b" % (CHAT.encode(), version),
        b"authorization: Bearer " + KEY.encode(),
        b"content-length: %d" % len(body),
        *lines,
    ]
    return b"\r\n".join([*head, b"", body])
