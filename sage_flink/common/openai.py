"""OpenAI's HTTP formats as every client of sage reads them: error bodies and streamed events.

Source: OpenAI API reference, error objects and server-sent events of chat completions.
"""

import re
from typing import Any

import msgspec

from sage_flink.common.errors import PoolError


def error_message(body: bytes, status: int) -> str:
    """The message of an error response, at most 500 characters; else its status and first bytes.

    >>> error_message(b'{"error": {"message": "no room"}}', 503)
    'no room'
    >>> error_message(b"<html>", 502)
    'HTTP 502: <html>'
    """
    error = _error_in(body)
    message = error.get("message") if isinstance(error, dict) else error
    if isinstance(message, str) and message.strip():
        return message[:500]
    return f"HTTP {status}: {body[:300].decode(errors='replace').strip()}".removesuffix(": ")


def error_code(body: bytes) -> str:
    """The code of an error response; empty without one.

    >>> error_code(b'{"error": {"message": "m", "code": "model_not_found"}}')
    'model_not_found'
    >>> error_code(b'{"error": {"message": "m", "code": 500}}')
    ''
    """
    error = _error_in(body)
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else ""


def pool_error(body: bytes, status: int) -> PoolError:
    """The error of a pool that answered with ``status`` and this body."""
    return PoolError(error_message(body, status), status=status, code=error_code(body))


def _error_in(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)["error"]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, IndexError, TypeError):
        return None


def event_of(line: bytes) -> dict[str, Any] | None:
    """The event that one line of a stream carries; None for ``[DONE]``, a comment or a blank.

    Raises:
        PoolError: the event is an error, or not a JSON object.

    >>> event_of(b'data: {"choices": []}')
    {'choices': []}
    """
    data = line.strip().removeprefix(b"data:").strip()
    if not line.startswith(b"data:") or data == b"[DONE]":
        return None
    try:
        event = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise PoolError(f"the stream carried what is not an event: {error}") from error
    if event.get("error"):
        raise PoolError(error_message(data, 200))
    return event


def retry_after_s(header: str) -> float:
    """The seconds that a Retry-After header asks for, 0 without a request to wait.

    Its other form, a date, needs clocks that agree; the caller's own back-off serves as well.

    >>> retry_after_s("1.5"), retry_after_s(""), retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT")
    (1.5, 0.0, 0.0)
    """
    return float(header) if re.fullmatch(r" *[0-9]{1,6}(\.[0-9]+)? *", header) else 0.0
