"""A pipeline's reply as OpenAI's chat completion, whole or as a stream of chunks."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import orjson

from sage_gateway.openai.error_table import error_event
from sage_gateway.openai.foreign_errors import gateway_error
from sage_gateway.openai.schema import ChatRequest
from sage_gateway.pipelines.pool_client import PoolClient
from sage_gateway.pipelines.served_pipeline import PipelineReply, ServedPipeline
from sage_gateway.requests.response import DONE, Response, StreamingResponse

DELTAS_MAX = 256


def whole(name: str, reply: PipelineReply, used: dict[str, int]) -> Response:
    """The answer in one piece; ``used``: the tokens of all calls of the pipeline."""
    _add_own(used, reply)
    message = {"role": "assistant", "content": reply.text}
    choice = {"index": 0, "message": message, "finish_reason": reply.finish_reason}
    page = _head(name, "chat.completion") | {
        "choices": [choice],
        "usage": _usage(used),
        "sources": reply.sources,
    }
    return Response(200, orjson.dumps(page), used=used)


async def stream(
    chat: ChatRequest, pipeline: ServedPipeline, body: dict[str, Any], pool: PoolClient
) -> StreamingResponse:
    """The answer as events, once its first piece (or its end) is ready.

    An error before that is raised; a later one is the last event.
    """
    deltas: asyncio.Queue[str | None] = asyncio.Queue(DELTAS_MAX)
    running = _RunningPipeline(asyncio.create_task(pipeline.answer(body, pool, deltas.put)), deltas)
    try:
        first = await anext(running.deltas, None)
    except BaseException:
        await running.cancel()
        raise
    found = StreamingResponse(running.events(chat, first, pool.used), running.close)
    found.use_tokens(pool.used)
    return found


class _RunningPipeline:
    """A pipeline whose answer is streamed."""

    def __init__(
        self, task: "asyncio.Task[PipelineReply]", queue: "asyncio.Queue[str | None]"
    ) -> None:
        self._task = task
        self._queue = queue
        self.deltas = self._read()
        self._events: AsyncGenerator[bytes, None] | None = None

    def events(
        self, chat: ChatRequest, first: str | None, used: dict[str, int]
    ) -> AsyncIterator[bytes]:
        """The chunks of the answer, whose first piece is ``first``, and at its end the usage."""
        self._events = self._chunks(chat, first, used)
        return self._events

    async def close(self) -> None:
        """End the pipeline, and both generators."""
        if self._events is not None:
            await self._events.aclose()
        await self.deltas.aclose()
        await self.cancel()

    async def cancel(self) -> None:
        """End the pipeline."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self) -> AsyncGenerator[str, None]:
        """The pieces of the text; ends with the pipeline, and raises its error."""
        while not self._task.done() or not self._queue.empty():
            waiting = asyncio.ensure_future(self._queue.get())
            try:
                await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
                if waiting.done() and (piece := waiting.result()):
                    yield piece
            finally:
                waiting.cancel()
        self._task.result()

    async def _chunks(
        self, chat: ChatRequest, first: str | None, used: dict[str, int]
    ) -> AsyncGenerator[bytes, None]:
        head = _head(chat.model, "chat.completion.chunk")
        yield _event(head, {"role": "assistant", "content": ""})
        try:
            if first is not None:
                yield _event(head, {"content": first})
            async for piece in self.deltas:
                yield _event(head, {"content": piece})
            reply = self._task.result()
        except Exception as error:  # the answer has started, so it must end with an event
            yield error_event(gateway_error(error))
            return
        _add_own(used, reply)
        yield _event(head | {"sources": reply.sources}, {}, reply.finish_reason)
        if chat.stream_options is not None and chat.stream_options.include_usage:
            page = head | {"choices": [], "usage": _usage(used)}
            yield b"data: " + orjson.dumps(page) + b"\n\n"
        yield DONE


def _event(head: Mapping[str, Any], delta: dict[str, str], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({**head, "choices": [choice]}) + b"\n\n"


def _head(name: str, kind: str) -> dict[str, Any]:
    answer_id = f"chatcmpl-{secrets.token_hex(12)}"
    return {"id": answer_id, "object": kind, "created": int(time.time()), "model": name}


def _add_own(used: dict[str, int], reply: PipelineReply) -> None:
    """Count what the pipeline reports, if it made no calls that the pool counted."""
    if not used:
        for direction, name in (("in", "prompt_tokens"), ("out", "completion_tokens")):
            used[direction] = int(reply.usage.get(name, 0))


def _usage(used: Mapping[str, int]) -> dict[str, int]:
    prompt, completion = used.get("in", 0), used.get("out", 0)
    total = prompt + completion
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
