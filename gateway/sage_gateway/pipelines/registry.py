"""Mounted pipelines: an object that answers a chat, served as if it were a model.

Whole, the answer is OpenAI's with ``sources`` beside ``choices``; streamed, the chunk that carries
``finish_reason`` has them.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import orjson

from sage_flink.common import Settings
from sage_gateway.errors import GatewayError
from sage_gateway.openai.error_table import error_event
from sage_gateway.openai.schema import ChatAsk, tokens
from sage_gateway.requests.response import DONE, Answer, Stream
from sage_gateway.routing import Headers

if TYPE_CHECKING:
    from sage_gateway.pipelines.pool_client import Transport

DELTAS_MAX = 256

#: What the calls of a pipeline take over from whoever asked it.
HANDED_ON = frozenset({b"x-sage-priority", b"x-sage-deadline-ms", b"x-sage-job", b"x-session-id"})

OnDelta = Callable[[str], Awaitable[None]]


class Asker(NamedTuple):
    """Who asked the pipeline that runs in this context, and what its calls are told of that."""

    tenant: str = ""
    headers: Mapping[bytes, bytes] = MappingProxyType({})

    @classmethod
    def of(cls, tenant: str, headers: Headers, traceparent: str) -> "Asker":
        """``traceparent``: empty when the request is not sampled."""
        told = {name: value for name, value in headers if name in HANDED_ON}
        return cls(tenant, told | ({b"traceparent": traceparent.encode()} if traceparent else {}))


ASKER: ContextVar[Asker | None] = ContextVar("asker", default=None)


@dataclass(frozen=True, slots=True)
class Reply:
    """A pipeline's whole answer. ``usage`` is OpenAI's: prompt, completion and total tokens."""

    text: str
    sources: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    finish_reason: str = "stop"


class Mount(Protocol):
    """A pipeline that answers chats."""

    async def answer(self, body: dict[str, Any], on_delta: OnDelta | None) -> Reply:
        """The reply to a chat request's ``body``.

        With ``on_delta`` each piece of the text is awaited there as it comes; the pieces joined
        are ``Reply.text``. Cancelled when the caller hangs up.

        Raises:
            Rejected: the request is at fault (400).
            PoolError: a call to the pool failed; its status is handed on.
        """
        ...


Factory = Callable[[Settings, "Transport"], Mount]


def load(
    settings: Settings, pool: "Transport", factories: Mapping[str, Factory]
) -> dict[str, Mount]:
    """Every mounted pipeline by the name that callers put into ``model``."""
    return {name: make(settings, pool) for name, make in factories.items()}


async def whole(name: str, mount: Mount, body: dict[str, Any]) -> Answer:
    """The answer in one piece."""
    reply = await mount.answer(body, None)
    message = {"role": "assistant", "content": reply.text}
    choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
    page = _head(name, "chat.completion") | {
        "choices": [choice],
        "usage": _usage(reply.usage),
        "sources": reply.sources,
    }
    told = orjson.dumps(page)
    return Answer(200, told, used=tokens(told))


async def streamed(
    name: str,
    mount: Mount,
    ask: ChatAsk,
    body: dict[str, Any],
    told: Callable[[BaseException], GatewayError],
) -> Stream:
    """The answer as events, once its first piece (or its end) is there.

    What goes wrong before that is raised; afterwards it is ``told`` in an error event.
    """
    pieces: asyncio.Queue[str | None] = asyncio.Queue(DELTAS_MAX)
    work = asyncio.create_task(mount.answer(body, pieces.put))
    feed = _pieces(pieces, work)

    async def close() -> None:
        await events.aclose()
        await feed.aclose()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)

    try:
        first = await anext(feed, None)
    except BaseException:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        raise
    events = _events(name, ask, first, feed, work, told)
    return Stream(events, close)


async def _pieces(
    pieces: "asyncio.Queue[str | None]", work: "asyncio.Task[Reply]"
) -> AsyncGenerator[str, None]:
    """The pieces as they come; ends with the work, and raises what it raised."""
    while not work.done() or not pieces.empty():
        waiting = asyncio.ensure_future(pieces.get())
        try:
            await asyncio.wait({waiting, work}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done() and (piece := waiting.result()):
                yield piece
        finally:
            waiting.cancel()
    work.result()


async def _events(
    name: str,
    ask: ChatAsk,
    first: str | None,
    feed: AsyncIterator[str],
    work: "asyncio.Task[Reply]",
    told: Callable[[BaseException], GatewayError],
) -> AsyncGenerator[bytes, None]:
    head = _head(name, "chat.completion.chunk")
    with_usage = ask.stream_options is not None and ask.stream_options.include_usage
    yield _event(head, {"role": "assistant", "content": ""})
    try:
        if first is not None:
            yield _event(head, {"content": first})
        async for piece in feed:
            yield _event(head, {"content": piece})
        reply = work.result()
    except Exception as error:  # the stream has begun: it must end with an event
        yield error_event(told(error))
        return
    yield _event(head | {"sources": reply.sources}, {}, reply.finish_reason)
    if with_usage:
        page = head | {"choices": [], "usage": _usage(reply.usage)}
        yield b"data: " + orjson.dumps(page) + b"\n\n"
    yield DONE


def _event(head: Mapping[str, Any], delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({**head, "choices": [choice]}) + b"\n\n"


def _head(name: str, kind: str) -> dict[str, Any]:
    made = int(time.time())
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": made} | {
        "model": name
    }


def _usage(found: Mapping[str, Any]) -> dict[str, int]:
    asked, answered = (int(found.get(f"{k}_tokens", 0)) for k in ("prompt", "completion"))
    total = int(found.get("total_tokens", asked + answered))
    return {"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": total}
