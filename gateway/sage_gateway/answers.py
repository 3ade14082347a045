"""What a route gives back: a whole answer, or a stream that has begun."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from sage_gateway.wire import ApiError

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)


@dataclass(slots=True, eq=False)
class Stream:
    """Server-sent events, whole ones, as they come. ``close`` must be awaited, read or not."""

    chunks: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]
    headers: tuple[tuple[bytes, bytes], ...] = ()


def refused(error: ApiError) -> Answer:
    """The answer that tells ``error``."""
    return Answer(error.status, error.body(), (JSON, *error.headers()))
