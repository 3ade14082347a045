"""The one table from the gateway's errors to HTTP: status, OpenAI's error body, headers."""

import orjson

from sage_gateway.errors import (
    Conflict,
    DeadlineExceeded,
    EngineFailed,
    EngineLost,
    EngineTimeout,
    GatewayError,
    HeadTooLarge,
    IdempotencyKeyReused,
    InternalError,
    InvalidKey,
    InvalidRequest,
    MethodNotAllowed,
    MissingScope,
    NoReplica,
    NotFound,
    QueueFull,
    QuotaExceeded,
    RequestTimeout,
    StoreAway,
    TooLarge,
    UnsupportedMedia,
)

STATUS: dict[type[GatewayError], int] = {
    InvalidRequest: 400,
    InvalidKey: 401,
    MissingScope: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimeout: 408,
    Conflict: 409,
    TooLarge: 413,
    UnsupportedMedia: 415,
    IdempotencyKeyReused: 422,
    QueueFull: 429,
    QuotaExceeded: 429,
    HeadTooLarge: 431,
    InternalError: 500,
    EngineFailed: 502,
    NoReplica: 503,
    EngineLost: 503,
    StoreAway: 503,
    DeadlineExceeded: 504,
    EngineTimeout: 504,
}
#: The error's ``type`` where it is not that of its status class.
TYPES = {401: "authentication_error", 429: "rate_limit_error"}
CHALLENGE = b'Basic realm="sage: the key is the password"'


#: The reverse: the first class of each status.
_CLASSES = {status: kind for kind, status in reversed(STATUS.items())}


def error_of(status: int, message: str, *, code: str | None = None) -> GatewayError:
    """The error of a foreign ``status``: that of an in-process call, or of the web framework."""
    kind = _CLASSES.get(status, InvalidRequest if status < 500 else EngineFailed)
    return kind(message, code=code)


def status_of(error: GatewayError) -> int:
    """The HTTP status."""
    return STATUS[type(error)]


def body_of(error: GatewayError) -> bytes:
    """``{"error": {...}}`` with OpenAI's four fields."""
    status = status_of(error)
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    kind = error.code if error.code == "insufficient_quota" else kind
    fields = {"message": str(error), "type": kind, "param": error.param, "code": error.code}
    return orjson.dumps({"error": fields})


def headers_of(error: GatewayError) -> list[tuple[bytes, bytes]]:
    """``Retry-After`` where waiting helps; ``WWW-Authenticate`` where a key is missing."""
    if isinstance(error, InvalidKey):
        return [(b"www-authenticate", CHALLENGE)]
    if error.retry_after_s is None:
        return []
    return [(b"retry-after", b"%d" % error.retry_after_s)]


def error_event(error: GatewayError) -> bytes:
    """The last server-sent event of a stream that cannot go on."""
    return b"data: " + body_of(error) + b"\n\n"
