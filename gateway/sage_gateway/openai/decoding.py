"""Reads the body of a request: JSON, the schema, and what a schema cannot say."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec
import orjson

from sage_gateway.errors import GatewayError, InvalidRequest
from sage_gateway.openai.schema import (
    BIAS_MAX,
    WHOLE_PATTERN,
    ChatRequest,
    CompletionRequest,
    EmbeddingsRequest,
    GenerationRequest,
    NamedTool,
    RerankRequest,
    ResponsesRequest,
    SearchRequest,
)

T = TypeVar("T")
#: Up to here each whole number has a float of its own.
WHOLE_MAX = 1 << 53
#: Of those that an error names.
WRONG_TOKENS_MAX = 10
_DECODERS: dict[type[Any], msgspec.json.Decoder[Any]] = {
    t: msgspec.json.Decoder(t)
    for t in (
        ChatRequest,
        CompletionRequest,
        EmbeddingsRequest,
        RerankRequest,
        ResponsesRequest,
        SearchRequest,
    )
}
_INPUT = msgspec.json.Decoder(
    Annotated[str, msgspec.Meta(min_length=1)]
    | Annotated[list[Annotated[str, msgspec.Meta(min_length=1)]], msgspec.Meta(min_length=1)]
)
_PROMPT_OBJECT = dict[str, msgspec.Raw]
_PROMPT_ITEM = str | int | float | _PROMPT_OBJECT | list[msgspec.Raw]
_PROMPT = msgspec.json.Decoder(
    str | _PROMPT_OBJECT | Annotated[list[_PROMPT_ITEM], msgspec.Meta(min_length=1)]
)
_MISSING = re.compile(r"missing required field `(\w+)`")
_PLACE = re.compile(r"at `\$\.?([^`]*)`")
_TOKEN_ID = re.compile(WHOLE_PATTERN)


def decode(body: bytes, kind: type[T]) -> T:
    """The request in ``body``; a whole number may be written as ``5.0``, as JSON schema has it.

    Raises:
        InvalidRequest: it is not JSON, or not of this schema; ``param`` is the field at fault.
    """
    try:
        return _decode(body, kind)
    except msgspec.ValidationError as error:
        whole = _with_whole_numbers(body) if "got `float`" in str(error) else None
        if whole is None:
            raise _invalid(error) from error
    try:
        return _decode(whole, kind)
    except msgspec.ValidationError as error:
        raise _invalid(error) from error


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        found: T = _DECODERS[kind].decode(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_json(error) from error
    except RecursionError as error:
        raise too_deep() from error
    return found


def dump_fields(fields: Mapping[str, Any]) -> bytes:
    """The body with these fields.

    Raises:
        InvalidRequest: they are nested more deeply than JSON can be written; the limit of reading
            it is higher.
    """
    try:
        return orjson.dumps(fields)
    except orjson.JSONEncodeError as error:
        raise too_deep() from error


def _with_whole_numbers(body: bytes) -> bytes | None:
    """``body`` with its whole numbers written as such; None if there are none."""
    fields = load_fields(body)
    if not isinstance(fields, dict):
        return None
    floats = {k: v for k, v in fields.items() if isinstance(v, float) and v.is_integer()}
    whole = {k: int(v) for k, v in floats.items() if abs(v) <= WHOLE_MAX}
    return dump_fields(fields | whole) if whole else None


def _invalid(error: msgspec.ValidationError) -> GatewayError:
    message = str(error)
    found = _PLACE.search(message)
    place = found[1] if found else ""
    if missing := _MISSING.search(message):
        place = f"{place}.{missing[1]}".removeprefix(".")
    return InvalidRequest(message, param=place or None)


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


def check_utf8(body: bytes) -> None:
    """Refuse a body that is not UTF-8; ``decode`` skips the fields that no schema names.

    Raises:
        InvalidRequest: it is not UTF-8.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise _not_json(error) from error


def check_chat(request: ChatRequest) -> None:
    """Refuse a chat whose content is not text.

    Raises:
        InvalidRequest: ``param`` is the first part that is something else.
    """
    for i, message in enumerate(request.messages):
        parts = message.content if isinstance(message.content, list) else ()
        for j, part in enumerate(parts):
            place = f"messages[{i}].content[{j}]"
            if part.type != "text":
                raise _refusal(f"{place}.type", f"only 'text' is taken, got {part.type!r}")
            if part.text is None:
                raise _refusal(f"{place}.text", "a part of type 'text' needs a text")


def check_tool_choice(request: ChatRequest) -> None:
    """Refuse the choice of a tool that the request does not have, as OpenAI does.

    Raises:
        InvalidRequest: ``param`` is the part of ``tool_choice`` at fault.
    """
    choice, names = request.tool_choice, {tool.function.name for tool in request.tools or ()}
    if choice == "required" and not names:
        raise _refusal("tool_choice", "'required' needs tools")
    if isinstance(choice, NamedTool) and choice.function.name not in names:
        raise _refusal(
            "tool_choice.function.name", f"no tool is named {choice.function.name!r:.80}"
        )


def check_stream_options(request: GenerationRequest) -> None:
    """Refuse options of a stream without a stream, as OpenAI does.

    Raises:
        InvalidRequest: there are some.
    """
    if request.stream_options is not None and not request.stream:
        raise _refusal("stream_options", "only allowed with 'stream': true")


def check_logit_bias(request: GenerationRequest) -> None:
    """Refuse a bias that is not a number from -100 to 100 of a token's number, as OpenAI does.

    llama.cpp reads a key that is not a number as a text, and ignores another wrong bias.

    Raises:
        InvalidRequest: there is one.
    """
    biases = request.logit_bias or {}
    if wrong := [f"{token!r:.80}" for token in biases if _TOKEN_ID.fullmatch(token) is None]:
        shown = ", ".join(wrong[:WRONG_TOKENS_MAX])
        raise _refusal("logit_bias", f"each name must be the number of a token, got {shown}")
    for token, bias in biases.items():
        if not isinstance(bias, int | float) or isinstance(bias, bool) or abs(bias) > BIAS_MAX:
            why = f"that of token {token} must be a number from -{BIAS_MAX} to {BIAS_MAX}"
            raise _refusal("logit_bias", f"{why}, got {bias!r:.80}")


def check_prompt(request: CompletionRequest) -> None:
    """Refuse a prompt that is neither texts nor tokens; what the tokens are, engines check.

    Raises:
        InvalidRequest: ``prompt`` is something else, or empty.
    """
    try:
        _PROMPT.decode(request.prompt)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal("prompt", "needs a text, a list of tokens, or a list of those") from error


def check_input(request: EmbeddingsRequest) -> None:
    """Refuse the numbers of tokens in place of texts: they depend on a model's vocabulary.

    Raises:
        InvalidRequest: ``input`` is neither a text nor a list of texts.
    """
    try:
        _INPUT.decode(request.input)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        numbers = bytes(request.input).lstrip(b"[ \t\r\n")[:1].isdigit()
        hint = "send texts, not token ids (LangChain: check_embedding_ctx_length=False)"
        raise _refusal("input", hint if numbers else "needs a text or a list of texts") from error


def _refusal(place: str, why: str) -> GatewayError:
    return InvalidRequest(f"{place}: {why}", param=place)


def too_deep() -> GatewayError:
    """The error of a body that is nested too deeply."""
    return InvalidRequest("the body is nested too deeply", code="invalid_json")


def _not_json(error: Exception) -> GatewayError:
    return InvalidRequest(f"the body is not JSON: {error}", code="invalid_json")
