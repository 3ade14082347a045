"""Why a request failed, in the gateway's own terms.

Raised where the failure happens; nothing here knows HTTP. ``openai/error_table.py`` is the one
place that turns them into a status, a code and ``Retry-After``.

    GatewayError
    ├── fix the request:  InvalidRequest, NotFound, Conflict, TooLarge, HeadTooLarge,
    │                     RequestTimeout, MethodNotAllowed, UnsupportedMedia, IdempotencyKeyReused
    ├── fix the key:      InvalidKey, MissingScope
    ├── try again later:  QueueFull, QuotaExceeded, NoReplica, EngineLost, StoreAway
    └── look at the pool: DeadlineExceeded, EngineTimeout, EngineFailed, InternalError
"""

from typing import ClassVar


class GatewayError(Exception):
    """A request that is not answered.

    ``code``: machine-readable reason, of the class unless given. ``param``: the field or header at
    fault. ``retry_after_s``: whole seconds after which the same request may succeed.
    """

    default_code: ClassVar[str | None] = None
    default_retry_after_s: ClassVar[int | None] = None

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code or self.default_code
        self.param = param
        self.retry_after_s = self.default_retry_after_s if retry_after_s is None else retry_after_s


class InvalidRequest(GatewayError):
    """The request itself is wrong; the same request fails again."""


class NotFound(GatewayError):
    """The model, replica, key, file or batch does not exist, or belongs to another tenant."""


class Conflict(GatewayError):
    """The request contradicts the state of what it names."""


class TooLarge(GatewayError):
    """The body or an upload exceeds its limit."""


class UnsupportedMedia(GatewayError):
    """The body is compressed in a way that is not known, or is not of a type that is read."""

    default_code = "unsupported_encoding"


class HeadTooLarge(GatewayError):
    """The request line and the headers exceed their limit."""

    default_code = "head_too_large"


class RequestTimeout(GatewayError):
    """The request did not arrive in time."""

    default_code = "request_timeout"


class MethodNotAllowed(GatewayError):
    """The path exists, but not with this method."""

    default_code = "method_not_allowed"


class IdempotencyKeyReused(GatewayError):
    """The idempotency key was used before with another body."""

    default_code = "idempotency_key_reused"


class InvalidKey(GatewayError):
    """No API key, or one that is not known."""

    default_code = "invalid_api_key"


class MissingScope(GatewayError):
    """The key is known, but does not have the scope that the path needs."""

    default_code = "missing_scope"


class QueueFull(GatewayError):
    """The model's queue is full, or had no room in time."""

    default_code = "rate_limit_exceeded"


class QuotaExceeded(GatewayError):
    """A rate limit or a token budget of the key or the tenant is used up."""

    default_code = "rate_limit_exceeded"


class NoReplica(GatewayError):
    """No replica of the model is ready."""

    default_code = "not_ready"


class EngineLost(GatewayError):
    """The engine went away before it answered."""

    default_code = "engine_lost"


class StoreAway(GatewayError):
    """A store that the answer depends on does not respond."""

    default_code = "unavailable"


class DeadlineExceeded(GatewayError):
    """The request's own deadline passed, or would pass before the answer."""

    default_code = "deadline_exceeded"


class EngineTimeout(GatewayError):
    """The engine did not answer within the model's ``timeout_s``."""

    default_code = "timeout"


class EngineFailed(GatewayError):
    """The engine answered with an error of its own, or broke off its answer."""

    default_code = "engine_error"


class InternalError(GatewayError):
    """A bug of the gateway; the details are in its log."""

    default_code = "internal_error"
