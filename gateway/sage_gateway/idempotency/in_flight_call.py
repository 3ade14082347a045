"""A call in flight under an id, and the clients that listen to it.

The events so far are kept, so that a later listener gets them from the start. An answer larger than
what may be recorded is *truncated*: no client can join any more, events that all listeners have are
dropped, and the engine waits for the slowest listener.

The response header ``x-sage-ledger`` says where an answer is from. Its name and its values, ``hit``
for a replayed and ``joined`` for a coalesced answer, are a public contract.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from sage_gateway.errors import GatewayError
from sage_gateway.idempotency.decisions import IdempotencyKey
from sage_gateway.idempotency.store_protocol import RecordedAnswer
from sage_gateway.openai.error_table import error_event
from sage_gateway.requests.request import Progress
from sage_gateway.requests.response import Response, StreamingResponse

HEADER = b"x-sage-ledger"
REPLAYED, COALESCED = "hit", "joined"


class InFlightCall:
    """``on_detached`` is called when the last listener leaves before the end.

    ``source``: the header's value for all listeners, if the answer is not from this call's engine.
    ``abandoned``: the gateway itself ends the call. ``progress``: that of its request.
    """

    def __init__(
        self,
        key: IdempotencyKey,
        *,
        bytes_max: int,
        on_detached: Callable[["InFlightCall"], None],
    ) -> None:
        self.key = key
        self.source: str | None = None
        self.truncated = False
        self.abandoned = False
        self.is_over = False
        self.listeners = 0
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.progress = Progress()
        self._bytes_max = bytes_max
        self._on_detached = on_detached
        self._response: Response | None = None
        self._streams = False
        self._error: GatewayError | None = None
        self._chunks: list[bytes] = []
        self._buffer_bytes = 0
        self._dropped_chunks = 0
        #: By listener of a stream, the number of chunks that it has.
        self._positions: dict[object, int] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._progress = asyncio.Event()

    # The methods below are called by the task that runs the call.

    def set_response(self, response: Response) -> None:
        """End the call with a whole answer."""
        self._response = response
        self.end()

    def replay(self, recorded: RecordedAnswer) -> None:
        """End the call with a recorded answer."""
        self.source = self.source or REPLAYED
        if recorded.stream:
            self._streams = True
            self._chunks.append(recorded.body)
            self.end()
        else:
            self.set_response(Response(200, recorded.body))

    def start_stream(self) -> None:
        """Announce that the answer is a stream."""
        self._streams = True
        self._notify()

    async def add_events(self, chunk: bytes) -> None:
        """Hand on some events; returns when there is room for more."""
        self._chunks.append(chunk)
        self._buffer_bytes += len(chunk)
        self._notify()
        if self._buffer_bytes > self._bytes_max and not self.truncated:
            self.truncated = True
            if not self.listeners:
                self._on_detached(self)
        while self._buffer_bytes > self._bytes_max:
            self._progress.clear()
            if not self._drop_chunks():
                await self._progress.wait()

    def end(self) -> None:
        """End the call: the answer is complete."""
        self.is_over = True
        self._notify()

    def fail(self, error: GatewayError) -> None:
        """End the call with an error for all listeners; for a started stream it is an event."""
        self._error = error
        self.end()

    def abandon(self) -> None:
        """Note that the gateway itself ends the call, not its clients."""
        self.abandoned = True

    def events_so_far(self) -> bytes:
        """All events of the stream; not of a truncated one."""
        return b"".join(self._chunks)

    # The methods below are called by listeners.

    async def listen(self, source: str | None) -> Response | StreamingResponse:
        """The answer, or its stream from the start. ``source`` is the header's value for it."""
        self.listeners += 1
        try:
            while not (self.is_over or self._streams):
                await self._wait()
        except BaseException:
            self._leave()
            raise
        if self._streams:
            return self._stream(source)
        self._leave()
        if self._response is None:
            assert self._error is not None
            raise self._error
        headers = self._headers(source)
        found = self._response
        return Response(found.status, found.body, (*found.headers, *headers)) if headers else found

    def _stream(self, source: str | None) -> StreamingResponse:
        listener = object()
        self._positions[listener] = 0
        events = self._events(listener)

        async def close() -> None:
            await events.aclose()
            if self._positions.pop(listener, None) is not None:
                self._progress.set()
                self._leave()

        return StreamingResponse(events, close, self._headers(source), on_abandon=self.abandon)

    async def _events(self, listener: object) -> AsyncGenerator[bytes, None]:
        while True:
            end = self._dropped_chunks + len(self._chunks)
            if new := self._chunks[self._positions[listener] - self._dropped_chunks :]:
                yield b"".join(new)
                self._positions[listener] = end
                self._progress.set()
            elif self.is_over:
                break
            else:
                await self._wait()
        if self._error is not None:
            yield error_event(self._error)

    def _headers(self, source: str | None) -> tuple[tuple[bytes, bytes], ...]:
        source = self.source or source
        return ((HEADER, source.encode()),) if source else ()

    def _leave(self) -> None:
        self.listeners -= 1
        if not self.listeners and not self.is_over:
            self._on_detached(self)

    def _drop_chunks(self) -> bool:
        """Drop the chunks that all listeners have; whether there were any."""
        if len(self._positions) < self.listeners:  # one has not read from the start yet
            return False
        first = min(self._positions.values(), default=self._dropped_chunks)
        count = first - self._dropped_chunks
        self._buffer_bytes -= sum(map(len, self._chunks[:count]))
        del self._chunks[:count]
        self._dropped_chunks += count
        return count > 0

    def _wait(self) -> "asyncio.Future[None]":
        """Done after the next ``_notify``."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():  # cancelled, if its listener has left
                waiter.set_result(None)
