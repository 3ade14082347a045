"""Answers of a handler: a whole one, or a stream of server-sent events.

A stream is read in one loop. Handlers that need to know how it ends (metrics, charges, recording)
are its observers, in the order in which they were added, the innermost handler first.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Protocol

import msgspec

from sage_gateway.errors import GatewayError
from sage_gateway.openai.completeness import END, has_error_event
from sage_gateway.openai.engine_answer import tokens
from sage_gateway.openai.error_table import body_of, error_event, headers_of, status_of

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
DONE = b"data: [DONE]\n\n"
#: Statuses of a stream with an error event, and of one that the gateway itself ends.
ENGINE_FAILED, GATEWAY_STOPS = 502, 503
NO_TOKENS: Mapping[str, int] = MappingProxyType({})
#: A text that is not empty. A quote inside of a text is escaped, so no text looks like this.
_TEXTS = re.compile(rb'"(?:content|text|reasoning_content|arguments)"\s*:\s*"[^"]')


class Response(msgspec.Struct, frozen=True, gc=False):
    """A whole answer; ``used`` is what :func:`openai.schema.tokens` finds in an engine's."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)
    used: Mapping[str, int] = NO_TOKENS


class StreamFacts(msgspec.Struct, gc=False):
    """Facts about a stream up to its last chunk, found in one scan of each chunk.

    ``events``: without ``[DONE]``. ``deltas``: pieces of text, of a token or more each. ``used``:
    the tokens that the engine counted; llama.cpp counts those of one choice. ``status``: 200, or
    that of the error that broke the stream.
    """

    events: int = 0
    deltas: int = 0
    used: Mapping[str, int] = NO_TOKENS
    status: int = 200

    @property
    def is_broken(self) -> bool:
        """Whether one of the events is an error, or the gateway itself ended the stream."""
        return self.status != 200

    def scan(self, chunk: bytes) -> bool:
        """Add the facts of a chunk of whole events; whether it ends with ``[DONE]``."""
        self.events += chunk.count(b"\n\n")
        deltas = chunk.count(b'"content":"') - chunk.count(b'"content":""')
        self.deltas += deltas or len(_TEXTS.findall(chunk))
        # A function call takes longer than the search that shows it is not needed.
        if b'"usage":' in chunk and (found := tokens(chunk)):
            self.used = found
        if b'{"error"' in chunk and has_error_event(chunk):
            self.status = ENGINE_FAILED
        done = chunk.endswith(END)
        self.events -= done
        return done


class StreamObserver(Protocol):
    """Observes a stream from its first chunk to its end."""

    async def before_done(self, facts: StreamFacts, chunk: bytes) -> None:
        """Called before ``chunk``, which ends with ``[DONE]``, is handed on.

        Raises:
            GatewayError: the stream ends with this error instead, and no later observer is called.
        """
        ...

    async def on_end(self, facts: StreamFacts, *, complete: bool) -> None:
        """Called once, after the last chunk (``complete``) or when the stream is closed before."""
        ...


class StreamingResponse:
    """Server-sent events in chunks of whole events; iterate over it. ``close`` must be awaited."""

    __slots__ = (
        *("_chunks", "_close", "_convert", "_ended", "_facts", "_observers", "_on_abandon"),
        "headers",
    )

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        close: Callable[[], Awaitable[None]],
        headers: tuple[tuple[bytes, bytes], ...] = (),
        *,
        on_abandon: Callable[[], None] | None = None,
    ) -> None:
        self.headers = headers
        self._chunks = chunks
        self._close = close
        self._on_abandon = on_abandon
        self._observers: list[StreamObserver] = []
        self._facts = StreamFacts()
        self._ended = False
        self._convert: Callable[[bytes], bytes] | None = None

    def convert_chunks(self, convert: Callable[[bytes], bytes]) -> None:
        """Hand on what ``convert`` makes of each chunk; nothing, if that is empty.

        Facts are those of the chunks before. The one with ``[DONE]`` must keep it.
        """
        self._convert = convert

    def observe(self, observer: StreamObserver) -> None:
        """Add an observer; before the first chunk is read."""
        self._observers.append(observer)

    def use_tokens(self, used: Mapping[str, int]) -> None:
        """Charge ``used``, as it is at the end, if no chunk has the tokens."""
        self._facts.used = used

    def __aiter__(self) -> "StreamingResponse":
        return self

    async def __anext__(self) -> bytes:
        if not self._observers:
            return await anext(self._chunks)
        if self._ended:
            raise StopAsyncIteration
        facts, convert = self._facts, self._convert
        while True:
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                await self._end(complete=True)
                raise
            done = facts.scan(chunk)
            if convert is not None:
                chunk = convert(chunk)
            if done:
                return await self._before_done(facts, chunk)
            if chunk:
                return chunk

    async def _before_done(self, facts: StreamFacts, chunk: bytes) -> bytes:
        try:
            for observer in self._observers:
                await observer.before_done(facts, chunk)
        except GatewayError as error:
            facts.status = status_of(error)
            await self._end(complete=True)
            return error_event(error)
        return chunk

    async def close(self) -> None:
        """Release the source; observers learn that the rest was not read, if it was not."""
        await self._close()
        await self._end(complete=False)

    async def abandon(self) -> None:
        """Close a stream that the gateway itself ends: it is broken, and its client pays nothing.

        ``on_abandon`` is called before ``close``.
        """
        self._facts.status = GATEWAY_STOPS
        if self._on_abandon is not None:
            self._on_abandon()
        await self.close()

    async def _end(self, *, complete: bool) -> None:
        if self._ended:
            return
        self._ended = True
        for observer in self._observers:
            await observer.on_end(self._facts, complete=complete)


def error_response(error: GatewayError) -> Response:
    """The answer to a request that failed."""
    return Response(status_of(error), body_of(error), (JSON, *headers_of(error)))
