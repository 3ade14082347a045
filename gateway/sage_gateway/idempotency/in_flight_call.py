"""One call that runs, and all who listen to it.

What has come is kept, so that a late listener hears it from the start. An answer larger than what
may be recorded is *cut*: nobody can join any more, what all have heard is dropped, and the engine
waits for the slowest listener.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable

from sage_gateway.errors import GatewayError
from sage_gateway.idempotency.decisions import Ticket
from sage_gateway.idempotency.store_protocol import Recorded
from sage_gateway.openai.error_table import error_event
from sage_gateway.requests.response import Response, StreamingResponse

HEADER = b"x-sage-ledger"


class Run:
    """``deserted`` is called when the last listener leaves before the end.

    ``mark`` tells all listeners where the answer is from, if it is not from this call.
    """

    def __init__(
        self, ticket: Ticket, *, bytes_max: int, deserted: Callable[["Run"], None]
    ) -> None:
        self.ticket = ticket
        self.mark: str | None = None
        self.cut = False
        self.over = False
        self.listeners = 0
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._bytes_max = bytes_max
        self._deserted = deserted
        self._whole: Response | None = None
        self._streams = False
        self._error: GatewayError | None = None
        self._chunks: list[bytes] = []
        self._held = 0
        self._base = 0
        self._places: dict[object, int] = {}
        self._news: list[asyncio.Future[None]] = []
        self._moved = asyncio.Event()

    # What the one who asks says.

    def answered(self, whole: Response) -> None:
        """The answer is there, and it is all."""
        self._whole = whole
        self.over = True
        self._tell()

    def replayed(self, kept: Recorded) -> None:
        """What was recorded is the answer."""
        self.mark = self.mark or "hit"
        if kept.stream:
            self._streams = True
            self._chunks.append(kept.body)
            self.over = True
            self._tell()
        else:
            self.answered(Response(200, kept.body))

    def begun(self) -> None:
        """The answer comes in events."""
        self._streams = True
        self._tell()

    async def event(self, chunk: bytes) -> None:
        """Some more events; returns when there is room for others."""
        self._chunks.append(chunk)
        self._held += len(chunk)
        self._tell()
        if self._held > self._bytes_max and not self.cut:
            self.cut = True
            if not self.listeners:
                self._deserted(self)
        while self._held > self._bytes_max:
            self._moved.clear()
            if not self._dropped():
                await self._moved.wait()

    def ended(self) -> None:
        """There are no more events."""
        self.over = True
        self._tell()

    def failed(self, error: GatewayError) -> None:
        """There will be no answer; all listeners are told, of one that has begun in an event."""
        self._error = error
        self.ended()

    def so_far(self) -> bytes:
        """All events that came; not after a cut."""
        return b"".join(self._chunks)

    # What a listener does.

    async def heard(self, mark: str | None) -> Response | StreamingResponse:
        """The answer, or the stream from its start. ``mark`` goes into the header."""
        self.listeners += 1
        try:
            while not (self.over or self._streams):
                await self._told()
        except BaseException:
            self._left()
            raise
        if self._streams:
            return self._stream(mark)
        self._left()
        if self._whole is None:
            assert self._error is not None
            raise self._error
        marks = self._marks(mark)
        whole = self._whole
        return Response(whole.status, whole.body, (*whole.headers, *marks)) if marks else whole

    def _stream(self, mark: str | None) -> StreamingResponse:
        place = object()
        self._places[place] = 0
        events = self._events(place)

        async def close() -> None:
            await events.aclose()
            if self._places.pop(place, None) is not None:
                self._moved.set()
                self._left()

        return StreamingResponse(events, close, self._marks(mark))

    async def _events(self, place: object) -> AsyncGenerator[bytes, None]:
        while True:
            upto = self._base + len(self._chunks)
            if fresh := self._chunks[self._places[place] - self._base :]:
                yield b"".join(fresh)
                self._places[place] = upto
                self._moved.set()
            elif self.over:
                break
            else:
                await self._told()
        if self._error is not None:
            yield error_event(self._error)

    def _marks(self, mark: str | None) -> tuple[tuple[bytes, bytes], ...]:
        mark = self.mark or mark
        return ((HEADER, mark.encode()),) if mark else ()

    def _left(self) -> None:
        self.listeners -= 1
        if not self.listeners and not self.over:
            self._deserted(self)

    def _dropped(self) -> bool:
        """Drop what all have heard; whether there was any."""
        if len(self._places) < self.listeners:  # one is still to begin, at the start
            return False
        count = min(self._places.values(), default=self._base) - self._base
        self._held -= sum(map(len, self._chunks[:count]))
        del self._chunks[:count]
        self._base += count
        return count > 0

    async def _told(self) -> None:
        """Return after the next ``_tell``."""
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._news.append(news)
        await news

    def _tell(self) -> None:
        told, self._news = self._news, []
        for news in told:
            if not news.done():  # or who waited has left
                news.set_result(None)
