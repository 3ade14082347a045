"""The HTTP client of the data plane: one request at a time on a kept-alive connection.

It does what the proxy needs of an engine on this machine and no more: POST a body, give status
and bytes, by plain HTTP. No redirects, no cookies, no decompression, no retries. A general client
took a quarter of the gateway's time for a request. Names and arguments are those of aiohttp, as
far as they go, so that one of its sessions can stand in for a :class:`Client`.
"""

import asyncio
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import cast
from urllib.parse import urlsplit

import aiohttp
import httptools

from sage_gateway.runtime.deadlines import Deadlines

KEEP_S = 4.0  # engines drop an idle connection after 5 s, and a request would be on its way
HELD_BYTES_MAX = 1 << 20
LATE_MAX_S = 0.1
URLS_MAX = 4096

Address = tuple[str, int]


class BrokenError(ConnectionError):
    """The connection ended, or what came on it is no HTTP, before the answer was whole."""


class EngineResponse(asyncio.Protocol):
    """One connection, and the answer that is coming on it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.idle_since_s = 0.0
        self.status, self.whole, self.open = 0, True, False
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self._held = 0
        self._kept = True
        self._begun = self._framed = self._paused = self._stray = False

    # What the client does.

    @property
    def content(self) -> "EngineResponse":
        """Where the body is read from."""
        return self

    def ask(self, request: bytes) -> None:
        """Send a request."""
        assert self._transport is not None
        self.whole = self._begun = self._framed = False
        self.status = 0
        self._transport.write(request)

    async def begun(self) -> None:
        """Return when the status is known."""
        while not self._begun:
            await self._news()

    async def readany(self) -> bytes:
        """What has come, at least a byte; none at the end."""
        while not self._chunks:
            if self.whole:
                return b""
            await self._news()
        found = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks, self._held = [], 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return found

    async def read(self) -> bytes:
        """All of it."""
        parts = [await self.readany()]
        while parts[-1]:
            parts.append(await self.readany())
        return parts[0] if len(parts) <= 2 else b"".join(parts)

    def leave(self) -> bool:
        """The request is over; whether the connection can take another. If not, it is dropped."""
        good = self.open and self._kept and not self._stray and self._error is None
        if good and self.whole and not self._chunks:
            return True
        self.drop()
        return False

    def late(self) -> None:
        """The answer is not whole in time."""
        self._fail(TimeoutError())

    def drop(self) -> None:
        """End the connection now."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    async def _news(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        await self._waiter

    def _fail(self, error: Exception) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # What the loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be asked."""
        self._transport, self.open = cast(asyncio.Transport, transport), True

    def data_received(self, data: bytes) -> None:
        """Some of the answer."""
        if self.whole:  # nobody asked
            return self.drop()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(BrokenError(f"no HTTP: {error}"))
            return self.drop()
        if self._held > HELD_BYTES_MAX and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        return self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """There will be no more; of an answer without a length that is its end."""
        self.open = False
        if self._begun and not self._framed and error is None:
            self.whole = True
        elif not self.whole:
            self._fail(BrokenError(str(error or "closed by the engine")))
        self._wake()

    # What the parser says.

    def on_message_begin(self) -> None:
        """One that nobody asked for, behind the answer, spoils the connection."""
        self._stray = self._stray or self.whole
        self._framed = self._framed and self._stray

    def on_header(self, name: bytes, _: bytes) -> None:
        """A length, or chunks, say where the answer ends."""
        self._framed = self._framed or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        """The status is known."""
        if self._stray:
            return
        self.status = self._parser.get_status_code()
        self._begun = self.status >= 200
        self._kept = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Some of it."""
        if not self._stray:
            self._chunks.append(body)
            self._held += len(body)

    def on_message_complete(self) -> None:
        """That was all; but 1xx is not the answer yet."""
        self.whole = self.whole or self._begun


class EngineRequest:
    """``async with`` it for the connection on which the answer comes; see :meth:`Client.post`."""

    __slots__ = ("_address", "_client", "_connection", "_request", "_timeout")

    def __init__(
        self, client: "Client", address: Address, request: bytes, timeout: aiohttp.ClientTimeout
    ) -> None:
        self._client = client
        self._address = address
        self._request = request
        self._timeout = timeout
        self._connection: EngineResponse | None = None

    async def __aenter__(self) -> EngineResponse:
        connection = self._client.kept(self._address)
        if connection is None:
            connection = await self._client.connected(self._address, self._timeout.sock_connect)
        connection.ask(self._request)
        self._connection = connection
        if self._timeout.total is not None:
            self._client.deadlines.add(connection, self._timeout.total, connection.late)
        try:
            await connection.begun()
        except BaseException:
            self._client.deadlines.drop(connection)
            connection.drop()
            raise
        return connection

    async def __aexit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        if self._connection is None:
            return
        self._client.deadlines.drop(self._connection)
        if self._connection.leave():
            self._client.keep(self._address, self._connection)


class Client:
    """Connections by address, the last used first; made on the loop that serves."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Address, list[EngineResponse]] = {}
        self._urls: dict[str, tuple[Address, bytes]] = {}
        self.deadlines = Deadlines(self._loop, LATE_MAX_S)
        self._all: weakref.WeakSet[EngineResponse] = weakref.WeakSet()

    def post(
        self,
        url: str,
        *,
        data: bytes,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        allow_redirects: bool = False,
    ) -> EngineRequest:
        """POST ``data``; the answer's status has come when the block begins.

        Of ``timeout``, ``total`` (until the answer is whole) and ``sock_connect`` are minded.
        Leaving the block before the answer was read to its end aborts it.

        Raises:
            TimeoutError: it is not whole in time.
            ConnectionError: no connection, or it broke.
            ValueError: a header has a line break.
        """
        assert not allow_redirects
        address, head = self._urls.get(url) or self._known(url)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if lines.count("\r") != len(headers) or lines.count("\n") != len(headers):
            raise ValueError("a header has a line break")
        length = b"content-length: %d\r\n\r\n" % len(data)
        request = b"".join((head, lines.encode("latin-1"), length, data))
        return EngineRequest(self, address, request, timeout)

    def kept(self, address: Address) -> EngineResponse | None:
        """A connection that can be used at once."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.open and self._loop.time() - connection.idle_since_s < KEEP_S:
                return connection
            connection.drop()
        return None

    def keep(self, address: Address, connection: EngineResponse) -> None:
        """It can be used again."""
        connection.idle_since_s = self._loop.time()
        self._idle.setdefault(address, []).append(connection)

    async def connected(self, address: Address, timeout_s: float | None) -> EngineResponse:
        """A new connection.

        Raises:
            ConnectionError: there is none in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: EngineResponse(self._loop), *address
                )
        except (OSError, TimeoutError) as error:
            raise BrokenError(f"no connection to {address[0]}:{address[1]}: {error}") from error
        self._all.add(connection)
        return connection

    async def close(self) -> None:
        """Abort what is still running."""
        for connection in list(self._all):
            connection.drop()
        self._idle.clear()
        await asyncio.sleep(0)  # the loop tells the connections

    def _known(self, url: str) -> tuple[Address, bytes]:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None or parts.port is None:
            raise ValueError(f"no address of an engine: {url}")
        path = url.partition(parts.netloc)[2] or "/"
        head = f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\n".encode("ascii")
        if len(self._urls) >= URLS_MAX:  # of engines that are gone
            self._urls.clear()
        found = self._urls[url] = ((parts.hostname, parts.port), head)
        return found
