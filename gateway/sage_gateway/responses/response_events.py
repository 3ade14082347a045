"""The chunks of a streamed chat as events of a streamed response."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from typing import Any

import orjson

from sage_gateway.responses.response_object import (
    Item,
    ResponseObject,
    function_call,
    message,
    reasoning,
    reasoning_text,
    status,
)


class ResponseEvents:
    """Turns whole events of a chat into events of ``response``.

    An item of the output (a message, a call of a function) is open until the next one begins.
    """

    def __init__(self, response: ResponseObject) -> None:
        self._response = response
        self._number = -1
        self._output: list[Item] = []
        self._item: Item | None = None  # the open one
        self._call_index = -1
        self._finish_reason = ""
        self._usage: object = None

    async def of(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The events; each chunk holds whole events of the chat."""
        started = self._response.initial()
        yield self._event("response.created", response=started)
        yield self._event("response.in_progress", response=started)
        async for chunk in chunks:
            for line in chunk.split(b"\n"):
                event = _decode(line)
                if "error" in event:
                    yield b"".join(self._fail(event["error"]))
                    return
                if made := b"".join(self._add(event)):
                    yield made
        yield b"".join(self._finish())

    def _add(self, event: Mapping[str, Any]) -> Iterator[bytes]:
        self._usage = event.get("usage") or self._usage
        for choice in event.get("choices") or ():
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            delta = choice.get("delta") or {}
            if reasoned := reasoning_text(delta):
                yield from self._add_text("reasoning", reasoned, [])
            if text := delta.get("content"):
                yield from self._add_text("message", text, self._response.logprobs(choice))
            for call in delta.get("tool_calls") or ():
                yield from self._add_call(call)

    def _add_text(self, kind: str, text: str, logprobs: list[Item]) -> Iterator[bytes]:
        if self._item is None or self._item["type"] != kind:
            yield from self._close()
            whole = reasoning("") if kind == "reasoning" else message("", [])
            self._item = {**whole, "status": "in_progress", "content": []}
            yield self._output_event("response.output_item.added", item=self._item)
            [part] = self._item["content"] = whole["content"]
            yield self._item_event("response.content_part.added", content_index=0, part=part)
        part = self._item["content"][0]
        part["text"] += text
        more = {"content_index": 0, "delta": text}
        if kind == "message":
            part["logprobs"] += logprobs
            more["logprobs"] = logprobs
        yield self._item_event(f"response.{part['type']}.delta", **more)

    def _add_call(self, call: Mapping[str, Any]) -> Iterator[bytes]:
        index = int(call.get("index", self._call_index + 1))
        function = call.get("function") or {}
        item = self._item
        if item is None or item["type"] != "function_call" or index != self._call_index:
            yield from self._close()
            self._call_index = index
            named = {"id": call.get("id"), "function": {"name": function.get("name") or ""}}
            item = self._item = {**function_call(named), "status": "in_progress"}
            yield self._output_event("response.output_item.added", item=item)
        if arguments := function.get("arguments"):
            item["arguments"] += arguments
            yield self._item_event("response.function_call_arguments.delta", delta=arguments)

    def _close(self, item_status: str = "completed") -> Iterator[bytes]:
        """Close the open item; only the last one may be incomplete."""
        item = self._item
        if item is None:
            return
        if item["type"] == "function_call":
            more = {"arguments": item["arguments"], "name": item["name"]}
            yield self._item_event("response.function_call_arguments.done", **more)
        else:
            part = item["content"][0]
            more = {name: part[name] for name in ("text", "logprobs") if name in part}
            yield self._item_event(f"response.{part['type']}.done", content_index=0, **more)
            yield self._item_event("response.content_part.done", content_index=0, part=part)
        item["status"] = item_status
        yield self._output_event("response.output_item.done", item=item)
        self._output.append(item)
        self._item = None

    def _finish(self) -> Iterator[bytes]:
        if self._item is None and not self._output:
            yield from self._add_text("message", "", [])
        yield from self._close(status(self._finish_reason))
        found = self._response.final(self._output, self._finish_reason, self._usage)
        yield self._event(f"response.{found['status']}", response=found)

    def _fail(self, error: Mapping[str, Any]) -> Iterator[bytes]:
        more = {name: error.get(name) for name in ("code", "message", "param")}
        yield self._event("error", **more)
        yield self._event("response.failed", response=self._response.failure(error))

    def _item_event(self, kind: str, **fields: Any) -> bytes:
        """An event about the open item."""
        assert self._item is not None
        return self._output_event(kind, item_id=self._item["id"], **fields)

    def _output_event(self, kind: str, **fields: Any) -> bytes:
        """An event about a place of the output."""
        return self._event(kind, output_index=len(self._output), **fields)

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._number += 1
        page = {"type": kind, "sequence_number": self._number, **fields}
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(page))


def _decode(line: bytes) -> dict[str, Any]:
    """The event in a line of a stream; empty for ``[DONE]``, a comment or a blank."""
    data = line.removeprefix(b"data:").strip()
    if not line.startswith(b"data:") or data == b"[DONE]":
        return {}
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) else {"error": {"message": "an event is not JSON"}}
