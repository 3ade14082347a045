"""OpenAI's request schemas, reduced to the fields that the gateway reads.

Bodies are forwarded unchanged. A wrong type in a field that decides the cost of a request is
refused here, because an engine might read it in another way.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
import orjson

from sage_gateway.errors import EngineFailed, GatewayError, InvalidRequest, NoReplica, QueueFull

BODY_BYTES_MAX = 8 << 20

T = TypeVar("T")
#: Of tokens; -1 is llama.cpp's "as many as there is room for".
Count = Annotated[int, msgspec.Meta(ge=-1, le=(1 << 31) - 1)]
#: Of answers to one request.
Choices = Annotated[int, msgspec.Meta(ge=0, le=128)]


_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1}]}


class Part(msgspec.Struct):
    """A piece of a message's content; only texts are taken (no addresses to fetch)."""

    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["text"]})]


class Message(msgspec.Struct):
    """One message of a conversation."""

    role: str
    content: str | list[Part] | None = None


class StreamOptions(msgspec.Struct):
    """What a stream should carry."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    """``POST /v1/chat/completions``."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n_predict: Count | None = None
    n: Choices | None = None
    n_cmpl: Choices | None = None
    best_of: Choices | None = None


class CompletionRequest(msgspec.Struct):
    """``POST /v1/completions``."""

    model: str
    prompt: msgspec.Raw
    stream: bool | None = False
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    n_predict: Count | None = None
    n: Choices | None = None
    n_cmpl: Choices | None = None
    best_of: Choices | None = None


class EmbeddingsRequest(msgspec.Struct):
    """``POST /v1/embeddings``; the engine checks ``input``."""

    model: str
    input: Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema=_TEXTS)]


class RerankRequest(msgspec.Struct):
    """``POST /v1/rerank``, as Cohere, Jina and vLLM have it."""

    model: str
    query: Annotated[str, msgspec.Meta(min_length=1)]
    documents: Annotated[list[str], msgspec.Meta(min_length=1)]


class SearchRequest(msgspec.Struct, forbid_unknown_fields=True):
    """``POST /v1/vector_stores/{name}/search``."""

    query: Annotated[str, msgspec.Meta(min_length=1)]
    max_num_results: Annotated[int, msgspec.Meta(ge=1, le=50)] = 10


GenerationRequest = ChatRequest | CompletionRequest
ModelRequest = ChatRequest | CompletionRequest | EmbeddingsRequest | RerankRequest

_DECODERS: dict[type[Any], msgspec.json.Decoder[Any]] = {
    t: msgspec.json.Decoder(t)
    for t in (ChatRequest, CompletionRequest, EmbeddingsRequest, RerankRequest, SearchRequest)
}
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_MISSING = re.compile(r"missing required field `(\w+)`")
_PLACE = re.compile(r"at `\$\.?([^`]*)`")
_TOKENS = {
    "in": re.compile(rb'"prompt_tokens"\s*:\s*(\d+)'),
    "out": re.compile(rb'"completion_tokens"\s*:\s*(\d+)'),
}


def decode(body: bytes, kind: type[T]) -> T:
    """The request in ``body``.

    Raises:
        InvalidRequest: it is not JSON, or not of this schema; ``param`` is the field at fault.
    """
    try:
        found: T = _DECODERS[kind].decode(body)
    except msgspec.ValidationError as error:
        place = _MISSING.search(str(error)) or _PLACE.search(str(error))
        raise InvalidRequest(str(error), param=place.group(1) if place else None) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json(error) from error
    except RecursionError as error:
        raise _too_deep() from error
    return found


def completion_tokens_max(request: GenerationRequest) -> int:
    """The largest limit of one completion in the request; -1: as many as there is room for.

    0: none is set; some engines read a limit of 0 in that way, too.
    """
    limits = request.max_tokens or 0, request.max_completion_tokens or 0, request.n_predict or 0
    return -1 if -1 in limits else max(limits)


def choices(request: GenerationRequest) -> int:
    """The completions of each prompt; ``n_cmpl`` is llama.cpp's name of ``n``."""
    return max(1, request.n or 0, request.n_cmpl or 0, request.best_of or 0)


def prompts(request: GenerationRequest) -> int:
    """The number of prompts. A list of numbers is one, and of another list each element may be.

    Raises:
        InvalidRequest: a prompt is nested too deeply.
    """
    if isinstance(request, ChatRequest):
        return 1
    prompt = bytes(request.prompt)
    if not prompt.startswith(b"[") or (b'"' not in prompt and prompt.find(b"[", 1) < 0):
        return 1
    try:
        return len(_LIST.decode(prompt))
    except RecursionError as error:
        raise _too_deep() from error


def check_utf8(body: bytes) -> None:
    """Refuse a body that is not UTF-8; ``decode`` skips the fields that no schema names.

    Raises:
        InvalidRequest: it is not UTF-8.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise _not_json(error) from error


def _too_deep() -> GatewayError:
    return InvalidRequest("the body is nested too deeply", code="invalid_json")


def _not_json(error: Exception) -> GatewayError:
    return InvalidRequest(f"the body is not JSON: {error}", code="invalid_json")


def load_fields(body: bytes) -> dict[str, Any]:
    """All fields of a body that ``decode`` accepted.

    Raises:
        InvalidRequest: a field that no schema names has a value that cannot be read.
    """
    try:
        found: dict[str, Any] = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_json(error) from error
    return found


def check_text_only(request: ChatRequest) -> None:
    """Refuse a chat whose content is not text.

    Raises:
        InvalidRequest: ``param`` is the first part that is something else.
    """
    for i, message in enumerate(request.messages):
        parts = message.content if isinstance(message.content, list) else ()
        for j, part in enumerate(parts):
            if part.type != "text":
                place = f"messages[{i}].content[{j}].type"
                raise InvalidRequest(
                    f"{place}: only 'text' is taken, got {part.type!r}", param=place
                )


def tokens(body: bytes) -> dict[str, int]:
    """``in`` and ``out`` of the last ``usage`` in an answer or in the end of a stream.

    Found by its bytes: a quote inside a JSON string is escaped, so a text cannot look like it.
    """
    at = body.rfind(b'"usage":')
    found = {k: p.search(body, at) for k, p in _TOKENS.items()} if at >= 0 else {}
    return {k: int(m.group(1)) for k, m in found.items() if m}


def engine_error(status: int, body: bytes, model: str) -> GatewayError:
    """The gateway's error for an engine's answer with an error ``status``."""
    message, kind = _message_and_type(body)
    message = message or f"the engine answered with status {status}"
    overflow = kind == "exceed_context_size_error" or "maximum context length" in message
    if overflow or "too large to process" in message:
        return InvalidRequest(message, code="context_length_exceeded", param="messages")
    if status == 429:
        return QueueFull(message, code="rate_limit_exceeded", retry_after_s=1)
    if status == 503:
        return NoReplica(f"{model}: {message}", retry_after_s=1)
    if 400 <= status < 500:
        return InvalidRequest(message)
    return EngineFailed(f"{model}: {message}", retry_after_s=1)


def _message_and_type(body: bytes) -> tuple[str, str]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    found = found.get("error", found) if isinstance(found, Mapping) else {}
    if not isinstance(found, Mapping):
        return str(found), ""
    return str(found.get("message", "")), str(found.get("type", ""))
