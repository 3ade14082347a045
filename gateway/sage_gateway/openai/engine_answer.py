"""Reads what the gateway needs of an engine's answer: the tokens, or the error."""

import re
from collections.abc import Mapping

import orjson

from sage_gateway.errors import EngineFailed, GatewayError, InvalidRequest, NoReplica, QueueFull

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


def error_status(error: object) -> int:
    """The status of an error that the engine sent as an event; 500 if it names none."""
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500


def _message_and_type(body: bytes) -> tuple[str, str]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    found = found.get("error", found) if isinstance(found, Mapping) else {}
    if not isinstance(found, Mapping):
        return str(found), ""
    return str(found.get("message", "")), str(found.get("type", ""))
