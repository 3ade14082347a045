"""One kept-alive HTTP connection to an engine, and the answer that arrives on it."""

import asyncio
from typing import cast

import httptools

BUFFER_BYTES_MAX = 1 << 20


class BrokenError(ConnectionError):
    """The connection ended, or its bytes are not HTTP, before the answer was complete."""


class EngineConnection(asyncio.Protocol):
    """Sends one request at a time; ``status`` and ``complete`` are those of its answer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.idle_since_s = 0.0
        self.status, self.complete, self.open = 0, True, False
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._keep_alive = True
        self._has_status = self._has_length = self._paused = self._has_surplus = False

    # Called by the client.

    @property
    def content(self) -> "EngineConnection":
        """The reader of the body, as aiohttp names it."""
        return self

    def send(self, request: bytes) -> None:
        """Send a request."""
        assert self._transport is not None
        self.complete = self._has_status = self._has_length = False
        self.status = 0
        self._transport.write(request)

    async def wait_for_status(self) -> None:
        """Return when the status is known."""
        while not self._has_status:
            await self._wait()

    async def readany(self) -> bytes:
        """The bytes that have arrived, at least one; empty at the end."""
        while not self._chunks:
            if self.complete:
                return b""
            await self._wait()
        found = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks, self._buffered_bytes = [], 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return found

    async def read(self) -> bytes:
        """The whole body."""
        parts = [await self.readany()]
        while parts[-1]:
            parts.append(await self.readany())
        return parts[0] if len(parts) <= 2 else b"".join(parts)

    def release(self) -> bool:
        """The request is over; whether the connection can send another. If not, it is dropped."""
        good = self.open and self._keep_alive and not self._has_surplus and self._error is None
        if good and self.complete and not self._chunks:
            return True
        self.drop()
        return False

    def time_out(self) -> None:
        """The answer did not complete in time."""
        self._fail(TimeoutError())

    def drop(self) -> None:
        """End the connection."""
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self) -> None:
        """Return after the next event."""
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

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection can send."""
        self._transport, self.open = cast(asyncio.Transport, transport), True

    def data_received(self, data: bytes) -> None:
        """A part of the answer arrived."""
        if self.complete:  # there is no request for it
            return self.drop()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(BrokenError(f"no HTTP: {error}"))
            return self.drop()
        full = self._buffered_bytes > BUFFER_BYTES_MAX
        if full and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        return self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection ended; that is also the end of an answer without a length."""
        self.open = False
        if self._has_status and not self._has_length and error is None:
            self.complete = True
        elif not self.complete:
            self._fail(BrokenError(str(error or "closed by the engine")))
        self._wake()

    # Called by the parser.

    def on_message_begin(self) -> None:
        """A second answer, to no request, makes the connection unusable."""
        self._has_surplus = self._has_surplus or self.complete
        self._has_length = self._has_length and self._has_surplus

    def on_header(self, name: bytes, _: bytes) -> None:
        """A length or chunks mark the end of the answer."""
        lower = name.lower()
        self._has_length = self._has_length or lower in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        """The status is known."""
        if self._has_surplus:
            return
        self.status = self._parser.get_status_code()
        self._has_status = self.status >= 200
        self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        if not self._has_surplus:
            self._chunks.append(body)
            self._buffered_bytes += len(body)

    def on_message_complete(self) -> None:
        """The answer is complete, unless it was an informational one (1xx)."""
        self.complete = self.complete or self._has_status
