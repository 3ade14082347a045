"""A chat completion as a response of ``/v1/responses``."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

import orjson

from sage_gateway.errors import EngineFailed
from sage_gateway.openai.schema import ResponsesRequest

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
ECHOED = (
    "instructions",
    "max_output_tokens",
    "temperature",
    "top_logprobs",
    "top_p",
    "user",
)

Item = dict[str, Any]


class ResponseObject:
    """The response to one request; ``head`` is what is known before the answer."""

    def __init__(self, request: ResponsesRequest, fields: Mapping[str, Any]) -> None:
        self._alternatives = request.top_logprobs or 0 if request.logprobs else None
        self.head: dict[str, Any] = {
            "id": new_id("resp"),
            "object": "response",
            "created_at": int(time.time()),
            "error": None,
            "incomplete_details": None,
            "model": request.model,
            "parallel_tool_calls": fields.get("parallel_tool_calls") is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None, **(fields.get("reasoning") or {})},
            "store": False,
            "text": request.text or {"format": {"type": "text"}},
            "tool_choice": request.tool_choice or "auto",
            "tools": request.tools or [],
            "truncation": "disabled",
            "metadata": fields.get("metadata") or {},
            **{name: fields.get(name) for name in ECHOED},
        }

    def initial(self) -> dict[str, Any]:
        """The response before its first piece."""
        return {**self.head, "status": "in_progress", "output": [], "usage": None}

    def final(self, output: list[Item], finish_reason: str, usage: object) -> dict[str, Any]:
        """The whole response."""
        reason = INCOMPLETE.get(finish_reason)
        return {
            **self.head,
            "status": status(finish_reason),
            "incomplete_details": {"reason": reason} if reason else None,
            "output": output,
            "usage": _usage(usage),
        }

    def failure(self, error: Mapping[str, Any]) -> dict[str, Any]:
        """The response of a stream that broke off."""
        named = {"code": "server_error", "message": str(error.get("message", ""))}
        return {**self.initial(), "status": "failed", "error": named}

    def logprobs(self, choice: Mapping[str, Any]) -> list[Item]:
        """The log probabilities in the choice of a chat; none where none were asked for."""
        if self._alternatives is None:
            return []
        found = (choice.get("logprobs") or {}).get("content") or ()
        return [
            {**_logprob(one), "top_logprobs": list(map(_logprob, self._most_likely(one)))}
            for one in found
        ]

    def _most_likely(self, one: Mapping[str, Any]) -> list[Any]:
        return list(one.get("top_logprobs") or ())[: self._alternatives]

    def of_chat(self, body: bytes) -> bytes:
        """The response in a whole chat completion.

        Raises:
            EngineFailed: it is none.
        """
        try:
            chat = orjson.loads(body)
            choice = chat["choices"][0]
            said = choice["message"]
            output = []
            if text := reasoning_text(said):
                output.append(reasoning(text))
            if text := said.get("content"):
                output.append(message(text, self.logprobs(choice)))
            output += [function_call(call) for call in said.get("tool_calls") or ()]
            output = output or [message("", [])]
            reason = str(choice.get("finish_reason"))
            output[-1]["status"] = status(reason)
        except (orjson.JSONDecodeError, LookupError, TypeError, AttributeError) as error:
            raise EngineFailed("the engine's answer is not a chat completion") from error
        return orjson.dumps(self.final(output, reason, chat.get("usage")))


def status(finish_reason: str) -> str:
    """The status of a response, and of its last item."""
    return "incomplete" if finish_reason in INCOMPLETE else "completed"


def message(text: str, logprobs: list[Item]) -> Item:
    """A message of the model."""
    return {
        "id": new_id("msg"),
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [output_text(text, logprobs)],
    }


def output_text(text: str, logprobs: list[Item]) -> Item:
    """The text of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def reasoning_text(said: Mapping[str, Any]) -> str:
    """The reasoning in a message or a delta of a chat; engines have two names for it."""
    return str(said.get("reasoning_content") or said.get("reasoning") or "")


def reasoning(text: str) -> Item:
    """The reasoning of the model, which precedes its message."""
    return {
        "id": new_id("rs"),
        "type": "reasoning",
        "summary": [],
        "status": "completed",
        "content": [{"type": "reasoning_text", "text": text}],
    }


def function_call(call: Mapping[str, Any]) -> Item:
    """A call of a function, from that of a chat completion."""
    function = call["function"]
    return {
        "id": new_id("fc"),
        "type": "function_call",
        "call_id": call.get("id") or new_id("call"),
        "name": function["name"],
        "arguments": function.get("arguments") or "",
        "status": "completed",
    }


def new_id(kind: str) -> str:
    """An id of its own."""
    return f"{kind}_{secrets.token_hex(12)}"


def _logprob(one: Mapping[str, Any]) -> Item:
    return {name: one[name] for name in ("token", "logprob", "bytes") if name in one}


def _usage(usage: object) -> dict[str, Any] | None:
    if not isinstance(usage, Mapping):
        return None
    read, written = (int(usage.get(f"{k}_tokens") or 0) for k in ("prompt", "completion"))
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    reasoned = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": reasoned},
        "total_tokens": read + written,
    }
