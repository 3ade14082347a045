"""HTTP client of the data plane: one request at a time on a kept-alive connection.

It does what the forwarder needs of an engine on this machine and no more: POST a body, read the
status and the bytes, over plain HTTP; no redirects, cookies, decompression or retries. A general
client took a quarter of the gateway's time for a request. Names and arguments are those of aiohttp
where it has them, so that an aiohttp session can take the place of a :class:`Client`.
"""

import asyncio
import weakref
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import urlsplit

import aiohttp

from sage_gateway.forwarding.engine_connection import BrokenError, EngineConnection
from sage_gateway.runtime.deadlines import Deadlines

KEEP_S = 4.0  # engines drop an idle connection after 5 s, and a request could be on its way then
TIMEOUT_DELAY_S_MAX = 0.1
URLS_MAX = 4096

Address = tuple[str, int]


class EngineRequest:
    """``async with`` it to send it, for the connection with its answer; see :meth:`Client.post`."""

    __slots__ = ("_address", "_client", "_connection", "_request", "_timeout")

    def __init__(
        self, client: "Client", address: Address, request: bytes, timeout: aiohttp.ClientTimeout
    ) -> None:
        self._client = client
        self._address = address
        self._request = request
        self._timeout = timeout
        self._connection: EngineConnection | None = None

    async def __aenter__(self) -> EngineConnection:
        connection = self._client.idle_connection(self._address)
        if connection is None:
            connection = await self._client.connect(self._address, self._timeout.sock_connect)
        connection.send(self._request)
        self._connection = connection
        if self._timeout.total is not None:
            self._client.deadlines.add(connection, self._timeout.total, connection.time_out)
        try:
            await connection.wait_for_status()
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
        if self._connection.release():
            self._client.keep(self._address, self._connection)


class Client:
    """Connections by address, the last used first; construct it on the loop that serves."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._idle: dict[Address, list[EngineConnection]] = {}
        self._urls: dict[str, tuple[Address, bytes]] = {}
        self.deadlines = Deadlines(self._loop, TIMEOUT_DELAY_S_MAX)
        self._all: weakref.WeakSet[EngineConnection] = weakref.WeakSet()

    def post(
        self,
        url: str,
        *,
        data: bytes,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
        allow_redirects: bool = False,
    ) -> EngineRequest:
        """POST ``data``; the answer's status is known at the start of the block.

        Of ``timeout``, ``total`` (until the answer is complete) and ``sock_connect`` apply.
        Leaving the block before the answer was read to its end aborts the request.

        Raises:
            TimeoutError: the answer did not complete in time.
            ConnectionError: there is no connection, or it broke.
            ValueError: a header has a line break.
        """
        assert not allow_redirects
        address, head = self._urls.get(url) or self._parse(url)
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        if lines.count("\r") != len(headers) or lines.count("\n") != len(headers):
            raise ValueError("a header has a line break")
        length = b"content-length: %d\r\n\r\n" % len(data)
        request = b"".join((head, lines.encode("latin-1"), length, data))
        return EngineRequest(self, address, request, timeout)

    def idle_connection(self, address: Address) -> EngineConnection | None:
        """An open connection that can send now; None if there is none."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if connection.open and self._loop.time() - connection.idle_since_s < KEEP_S:
                return connection
            connection.drop()
        return None

    def keep(self, address: Address, connection: EngineConnection) -> None:
        """Keep an open connection for the next request."""
        connection.idle_since_s = self._loop.time()
        self._idle.setdefault(address, []).append(connection)

    async def connect(self, address: Address, timeout_s: float | None) -> EngineConnection:
        """A new connection.

        Raises:
            ConnectionError: the engine did not accept one in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: EngineConnection(self._loop), *address
                )
        except (OSError, TimeoutError) as error:
            raise BrokenError(f"no connection to {address[0]}:{address[1]}: {error}") from error
        self._all.add(connection)
        return connection

    async def close(self) -> None:
        """Abort all requests."""
        for connection in list(self._all):
            connection.drop()
        self._idle.clear()
        await asyncio.sleep(0)  # the loop calls connection_lost

    def _parse(self, url: str) -> tuple[Address, bytes]:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None or parts.port is None:
            raise ValueError(f"no address of an engine: {url}")
        path = url.partition(parts.netloc)[2] or "/"
        head = f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\n".encode("ascii")
        if len(self._urls) >= URLS_MAX:  # most are those of engines that ended
            self._urls.clear()
        found = self._urls[url] = ((parts.hostname, parts.port), head)
        return found
