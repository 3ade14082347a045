"""The chat that a request to ``/v1/responses`` becomes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sage_gateway.errors import GatewayError, InvalidRequest
from sage_gateway.openai.decoding import dump_fields
from sage_gateway.openai.schema import ResponsesRequest

ROLES = frozenset({"user", "assistant", "system", "developer"})
TEXTS = frozenset({"input_text", "output_text", "text"})
#: Fields that need responses of earlier requests, which the gateway does not keep.
STORED = ("previous_response_id", "conversation", "background", "prompt")
SAME = ("temperature", "top_p", "parallel_tool_calls", "user")
#: Fields of chats that OpenAI's responses lack and vLLM's have; an engine ignores what it lacks.
SAMPLING = (
    "chat_template_kwargs",
    "frequency_penalty",
    "logit_bias",
    "min_p",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "stop",
    "top_k",
)
#: What a field of the chat is called in a response, where the two differ.
RESPONSE_FIELDS: Mapping[str, str] = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "logprobs": "include",
}
#: Of a tool, apart from its name: the type of each, and how an error names it.
TOOL_FIELDS: Mapping[str, tuple[type, str]] = {
    "description": (str, "a text"),
    "parameters": (dict, "an object"),
    "strict": (bool, "true or false"),
}

Fields = Mapping[str, Any]


def chat_body(request: ResponsesRequest, fields: Fields) -> bytes:
    """The body of the chat; ``fields`` are all fields of the request's body.

    Raises:
        InvalidRequest: a field, or a part of the input, has no counterpart in a chat.
    """
    for name in STORED:
        if fields.get(name):
            raise _refusal(name, "the gateway keeps no responses; send the whole input")
    body: dict[str, Any] = {"model": request.model, "messages": _messages(request)}
    copied = SAME + SAMPLING
    body |= {name: fields[name] for name in copied if fields.get(name) is not None}
    if request.max_output_tokens is not None:
        body["max_tokens"] = request.max_output_tokens
    if request.tools:
        body["tools"] = [_tool(i, tool) for i, tool in enumerate(request.tools)]
    choice = request.tool_choice
    if choice is not None and (request.tools or choice not in ("auto", "none")):
        body["tool_choice"] = _tool_choice(choice, request.tools or ())
    if response_format := _format((request.text or {}).get("format")):
        body["response_format"] = response_format
    if request.reasoning is not None and request.reasoning.effort is not None:
        body["reasoning_effort"] = request.reasoning.effort
    if request.logprobs:  # of 0 alternatives llama.cpp gives no log probabilities at all
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs or 1}
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return dump_fields(body)


def response_field(param: str) -> str:
    """The field of a response that the field ``param`` of its chat was made of.

    >>> response_field("messages[1].content"), response_field("seed")
    ('input', 'seed')
    """
    return RESPONSE_FIELDS.get(re.split(r"[.\[]", param, maxsplit=1)[0], param)


def _messages(request: ResponsesRequest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if request.instructions:
        found.append({"role": "system", "content": request.instructions})
    if isinstance(request.input, str):
        found.append({"role": "user", "content": request.input})
        return found
    for i, item in enumerate(request.input):
        _add_item(found, f"input[{i}]", item)
    if not found:
        raise _refusal("input", "it must not be empty")
    return found


def _add_item(found: list[dict[str, Any]], place: str, item: Fields) -> None:
    match item.get("type", "message"):
        case "message":
            found.append({"role": _role(place, item), "content": _text(place, item)})
        case "function_call":
            _add_call(found, place, item)
        case "function_call_output":
            call_id = _string(place, item, "call_id")
            output = _content(f"{place}.output", item.get("output"))
            found.append({"role": "tool", "tool_call_id": call_id, "content": output})
        case "reasoning":
            pass
        case other:
            raise _refusal(f"{place}.type", f"{other!r} is not taken")


def _role(place: str, item: Fields) -> str:
    role = _string(place, item, "role")
    if role not in ROLES:
        raise _refusal(f"{place}.role", f"must be one of {', '.join(sorted(ROLES))}")
    return "system" if role == "developer" else role


def _text(place: str, item: Fields) -> str:
    return _content(f"{place}.content", item.get("content"))


def _content(place: str, content: object) -> str:
    """A text, or the texts of its parts joined."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _refusal(place, "must be a text or a list of parts")
    return "".join(_part(f"{place}[{i}]", part) for i, part in enumerate(content))


def _part(place: str, part: object) -> str:
    if not isinstance(part, Mapping):
        raise _refusal(place, "must be an object")
    if part.get("type") not in TEXTS:
        raise _refusal(f"{place}.type", f"only texts are taken, got {part.get('type')!r}")
    return _string(place, part, "text")


def _add_call(found: list[dict[str, Any]], place: str, item: Fields) -> None:
    """Add a call to the assistant's message before it; several calls are one message."""
    function = {
        "name": _string(place, item, "name"),
        "arguments": _string(place, item, "arguments"),
    }
    call = {"id": _string(place, item, "call_id"), "type": "function", "function": function}
    if not found or found[-1]["role"] != "assistant":
        found.append({"role": "assistant", "content": None})
    found[-1].setdefault("tool_calls", []).append(call)


def _tool(index: int, tool: Fields) -> dict[str, Any]:
    place = f"tools[{index}]"
    if tool.get("type") != "function":
        raise _refusal(f"{place}.type", "only 'function' is taken")
    if not _string(place, tool, "name"):
        raise _refusal(f"{place}.name", "must not be empty")
    for name, (kind, shown) in TOOL_FIELDS.items():
        if tool.get(name) is not None and not isinstance(tool[name], kind):
            raise _refusal(f"{place}.{name}", f"must be {shown}")
    function = {name: tool[name] for name in ("name", *TOOL_FIELDS) if name in tool}
    return {"type": "function", "function": function}


def _tool_choice(choice: str | Fields, tools: Sequence[Fields]) -> Any:
    if isinstance(choice, str):
        return choice
    if choice.get("type") != "function":
        raise _refusal("tool_choice.type", "only 'function' is taken")
    name = _string("tool_choice", choice, "name")
    if name not in (tool.get("name") for tool in tools):
        raise _refusal("tool_choice.name", f"no tool is named {name!r:.80}")
    return {"type": "function", "function": {"name": name}}


def _format(wanted: object) -> dict[str, Any] | None:
    if wanted is None:
        return None
    if not isinstance(wanted, Mapping):
        raise _refusal("text.format", "must be an object")
    match wanted.get("type"):
        case "text":
            return None
        case "json_object":
            return {"type": "json_object"}
        case "json_schema":
            if not isinstance(wanted.get("schema"), Mapping):
                raise _refusal("text.format.schema", "must be a JSON schema")
            schema = {name: one for name, one in wanted.items() if name != "type"}
            return {"type": "json_schema", "json_schema": schema}
    raise _refusal("text.format.type", "must be text, json_object or json_schema")


def _string(place: str, item: Fields, name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise _refusal(f"{place}.{name}", "must be a text")
    return value


def _refusal(place: str, why: str) -> GatewayError:
    return InvalidRequest(f"{place}: {why}", param=place)
