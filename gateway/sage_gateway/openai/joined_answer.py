"""Joins the events of a stream into the whole answer that the engine would have given.

Some engines end a generation when the caller of a stream disconnects, but not that of a whole
answer: llama.cpp looks at a connection only when it writes. So the gateway asks such an engine for
a stream. It also knows then what was generated so far, by the ``timings`` in each event.

Two differences from llama.cpp's own whole answer: the usage is that of all choices, not only of the
first one; and before a stop word there is a log probability for every piece of the text, where the
engine leaves out the last ones.
"""

from collections.abc import Mapping
from typing import Any

import orjson

BUFFER_BYTES_MAX = 8 << 20
#: Fields of a delta whose pieces are joined; others are replaced by their last value.
TEXTS = frozenset({"content", "reasoning_content", "refusal", "text", "arguments"})


class StreamBrokenError(ValueError):
    """What the engine sent is no stream of events."""


class JoinedAnswer:
    """The answer so far; ``choices_each`` is the number of choices for each prompt.

    ``done``: its last event has arrived. ``error``: that of the engine, in place of the rest.
    """

    def __init__(self, choices_each: int) -> None:
        self.done = False
        self.error: Mapping[str, Any] | None = None
        self._choices_each = choices_each
        self._buffer = b""
        self._page: dict[str, Any] = {}
        self._choices: dict[int, _Choice] = {}
        self._usages: list[Mapping[str, Any]] = []
        self._timings: dict[int, Mapping[str, Any]] = {}
        self._index = 0  # of the last choice

    def add(self, chunk: bytes) -> None:
        """Add some bytes of the stream.

        Raises:
            StreamBrokenError: an event is not JSON, or too large.
        """
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        if len(self._buffer) > BUFFER_BYTES_MAX:
            raise StreamBrokenError("an event is too large")
        for line in lines:
            name, _, data = line.partition(b":")
            data = data.strip()
            if name not in (b"data", b"error") or not data:
                continue
            if data == b"[DONE]":
                self.done = True
                continue
            try:
                event = orjson.loads(data)
            except orjson.JSONDecodeError as error:
                raise StreamBrokenError(str(error)) from error
            if isinstance(event, dict):  # llama.cpp sends null before a choice has text
                self._add(event)

    def tokens(self) -> dict[str, int]:
        """The tokens so far, ``in`` and ``out``; empty before the first one."""
        if self._usages and len(self._usages) == len(self._choices):
            usage = self._usage()
            return {"in": usage["prompt_tokens"], "out": usage["completion_tokens"]}
        if not self._timings:
            return {}
        found = self._timings.values()
        prompt = sum(one.get("cache_n", 0) + one.get("prompt_n", 0) for one in found)
        out = sum(one.get("predicted_n", 0) for one in found)
        return {"in": prompt // self._choices_each, "out": out}

    def body(self) -> bytes:
        """The whole answer."""
        page = {**self._page, "choices": [c.page() for _, c in sorted(self._choices.items())]}
        page["object"] = str(page.get("object", "")).removesuffix(".chunk")
        if self._usages:
            page["usage"] = self._usage()
        if 0 in self._timings:
            page["timings"] = self._timings[0]
        return orjson.dumps(page)

    def _add(self, event: dict[str, Any]) -> None:
        if "error" in event or "choices" not in event:
            self.error = event.get("error", event)
            return
        for choice in event["choices"]:
            self._index = choice["index"]
            self._choices.setdefault(self._index, _Choice(self._index)).add(choice)
        if usage := event.get("usage"):
            self._usages.append(usage)
        if timings := event.get("timings"):
            self._timings[self._index] = timings
        if not self._page:
            self._page = {k: v for k, v in event.items() if k not in ("usage", "timings")}

    def _usage(self) -> dict[str, Any]:
        usages = self._usages
        if len(usages) == 1:
            return dict(usages[0])
        prompt = sum(one["prompt_tokens"] for one in usages) // self._choices_each
        out = sum(one["completion_tokens"] for one in usages)
        total = {"completion_tokens": out, "prompt_tokens": prompt, "total_tokens": prompt + out}
        details = [one.get("prompt_tokens_details", {}).get("cached_tokens", 0) for one in usages]
        cached = sum(details) // self._choices_each
        return {**total, "prompt_tokens_details": {"cached_tokens": cached}}


class _Choice:
    """One choice: its texts in pieces, its calls of tools, its log probabilities."""

    def __init__(self, index: int) -> None:
        self._page: dict[str, Any] = {"index": index}
        self._message: _Texts | None = None
        self._texts = _Texts()
        self._calls: dict[int, _Texts] = {}
        self._logprobs: dict[str, list[Any]] | None = None

    def add(self, choice: dict[str, Any]) -> None:
        """Add the choice of an event."""
        delta = choice.pop("delta", None)
        logprobs = choice.pop("logprobs", self)
        if "text" in choice:
            self._texts.add({"text": choice.pop("text")})
            self._page.setdefault("logprobs", None)
        if delta is not None:
            self._message = self._message or _Texts()
            for call in delta.pop("tool_calls", None) or ():
                self._calls.setdefault(call.get("index", 0), _Texts()).add(call)
            self._message.add(delta)
        if isinstance(logprobs, dict):
            self._logprobs = self._logprobs or {}
            for name, items in logprobs.items():
                self._logprobs.setdefault(name, []).extend(items or ())
        self._page.update(choice)

    def page(self) -> dict[str, Any]:
        """The choice of a whole answer."""
        page = {**self._page, **self._texts.page()}
        if self._message is not None:
            # llama.cpp sends no role where the first token is a part of a character
            page["message"] = {"role": "assistant", **self._message.page()}
            if self._calls:
                calls = [call.page() for _, call in sorted(self._calls.items())]
                page["message"]["tool_calls"] = [
                    {name: value for name, value in call.items() if name != "index"}
                    for call in calls
                ]
            elif page["message"].get("content") is None:
                page["message"]["content"] = ""
        if self._logprobs is not None:
            page["logprobs"] = self._logprobs
        return page


class _Texts:
    """The fields of an object that arrives in pieces."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}

    def add(self, more: Mapping[str, Any]) -> None:
        """Add a piece."""
        for name, value in more.items():
            if isinstance(value, dict):
                self._fields.setdefault(name, _Texts()).add(value)
            elif name not in TEXTS:
                self._fields[name] = value
            elif value is None:
                self._fields.setdefault(name, None)
            elif self._fields.get(name) is None:
                self._fields[name] = [value]
            else:
                self._fields[name].append(value)

    def page(self) -> dict[str, Any]:
        """The whole object."""
        return {name: _whole(name, value) for name, value in self._fields.items()}


def _whole(name: str, value: Any) -> Any:
    if isinstance(value, _Texts):
        return value.page()
    return "".join(value) if name in TEXTS and value is not None else value
