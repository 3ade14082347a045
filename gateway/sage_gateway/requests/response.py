"""What a route gives back: a whole answer, or a stream that has begun."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from sage_gateway.errors import GatewayError
from sage_gateway.openai.error_table import body_of, headers_of, status_of

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
DONE = b"data: [DONE]\n\n"
NOTHING_USED: Mapping[str, int] = MappingProxyType({})


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A whole answer; ``used`` is what :func:`openai.schema.tokens` finds in an engine's."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)
    used: Mapping[str, int] = NOTHING_USED


@dataclass(slots=True, eq=False)
class Stream:
    """Server-sent events, whole ones, as they come. ``close`` must be awaited, read or not."""

    chunks: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]
    headers: tuple[tuple[bytes, bytes], ...] = ()


def refused(error: GatewayError) -> Answer:
    """The answer that tells ``error``."""
    return Answer(status_of(error), body_of(error), (JSON, *headers_of(error)))
