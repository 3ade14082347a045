"""Reads what the gateway needs of an engine's answer: the tokens, or the error."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from sage_gateway.errors import EngineFailed, GatewayError, InvalidRequest, NoReplica, QueueFull
from sage_gateway.openai.routes import TEXT_FIELDS

#: A field of llama.cpp's answers, which proxies pass on; its header ``Server`` they replace.
_TIMINGS = re.compile(rb'"timings"\s*:\s*\{[^}]*"predicted_n"')
#: llama.cpp answers 500 to these mistakes of a client.
_CLIENTS_FAULT = re.compile(
    r"^Failed to parse (messages|tools):|^Unknown reasoning format"
    r"|\[json\.exception\.type_error\.302\]"
)
#: How llama.cpp names the field that is wrong.
_FIELD = re.compile(r"^Field '(\w+)':")
_TOKENS = {
    "in": re.compile(rb'"prompt_tokens"\s*:\s*(\d+)'),
    "out": re.compile(rb'"completion_tokens"\s*:\s*(\d+)'),
}


def tokens(body: bytes) -> dict[str, int]:
    """``in`` and ``out`` of the last ``usage`` in an answer or in the end of a stream.

    Found by its bytes: a quote inside a JSON string is escaped, so a text cannot look like it.
    """
    at = body.rfind(b'"usage":')
    found = {k: p.search(body, at) for k, p in _TOKENS.items()} if at >= 0 else {}
    return {k: int(m.group(1)) for k, m in found.items() if m}


def counts_first_choice(body: bytes) -> bool:
    """Whether a whole answer is one of llama.cpp: its usage is that of the first choice alone."""
    at = body.rfind(b'"timings"')
    return at >= 0 and _TIMINGS.match(body, at) is not None


def engine_error(status: int, body: bytes, model: str, path: str) -> GatewayError:
    """The gateway's error for an engine's answer with an error ``status`` to a POST to ``path``."""
    fields = _error_fields(body)
    message, kind = str(fields.get("message", "")), fields.get("type")
    message = message or f"the engine answered with status {status}"
    overflow = kind == "exceed_context_size_error" or "maximum context length" in message
    if overflow or "too large to process" in message:
        param = TEXT_FIELDS.get(path)
        return InvalidRequest(message, code="context_length_exceeded", param=param)
    if status == 500 and _CLIENTS_FAULT.search(message):
        return InvalidRequest(message)
    if status == 429:
        return QueueFull(message, code="rate_limit_exceeded", retry_after_s=1)
    if status == 503:
        return NoReplica(f"{model}: {message}", retry_after_s=1)
    if 400 <= status < 500:
        named = fields.get("param")
        if not isinstance(named, str):
            found = _FIELD.match(message)
            named = found[1] if found else None
        return InvalidRequest(message, param=named)
    return EngineFailed(f"{model}: {message}", retry_after_s=1)


def error_status(error: object) -> int:
    """The status of an error that the engine sent as an event; 500 if it names none."""
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _error_fields(body: bytes) -> Mapping[str, Any]:
    """The fields of an engine's error; an engine's body may be anything."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    found = found.get("error", found) if isinstance(found, Mapping) else {}
    return found if isinstance(found, Mapping) else {"message": found}
