"""Classification of one request to the pool: success, retryable failure, or final failure.

Values throughout: no function here raises for a reply. The native operator classifies in the same
way (``connectors/native``), so that both targets retry alike.
"""

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

import msgspec

from sage_flink.common.errors import PoolAway, PoolError, PoolTimeout, SageError
from sage_flink.common.openai import pool_error
from sage_flink.flow.call_ports import Reply

#: ``Pool.post``: path, body, headers -> the reply.
Post = Callable[[str, bytes, Mapping[str, str]], Awaitable[Reply]]
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Classification(Enum):
    """The class of a reply: whether a retry may help, and whether the content may be the cause."""

    OK = auto()
    #: No connection: the request was not sent.
    UNREACHABLE = auto()
    #: Load or start-up: the same request may succeed later or elsewhere.
    BUSY = auto()
    #: Either transient or caused by the content of the request: a text that crashes the engine.
    UNCERTAIN = auto()
    #: The content is refused: a part of it may be accepted.
    REFUSED = auto()
    #: Neither a retry nor a smaller request helps.
    FINAL = auto()

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self in (
            Classification.UNREACHABLE,
            Classification.BUSY,
            Classification.UNCERTAIN,
        )

    @property
    def content_may_be_the_cause(self) -> bool:
        """Whether a part of the request may succeed where the whole failed."""
        return self in (Classification.REFUSED, Classification.UNCERTAIN)


_OF_STATUS = {
    **dict.fromkeys((408, 429, 503), Classification.BUSY),
    **dict.fromkeys((0, 500, 502, 504), Classification.UNCERTAIN),
    **dict.fromkeys((400, 413, 422), Classification.REFUSED),
}


class Attempt(NamedTuple):
    """The result of one request; ``error`` is None exactly when the classification is OK."""

    classification: Classification
    body: bytes = b""
    error: SageError | None = None
    retry_after_s: float = 0.0


async def attempt(post: Post, path: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
    """One request and its classification. Raises only when it is cancelled."""
    try:
        return classify(await post(path, body, headers))
    except PoolAway as error:
        return Attempt(Classification.UNREACHABLE, error=error)
    except PoolError as error:
        # With a 2xx status the body was the problem, for example its size.
        success = 200 <= error.status < 300
        kind = Classification.REFUSED if success else classify_status(error.status)
        return Attempt(kind, error=error)
    except PoolTimeout as error:
        return Attempt(Classification.UNCERTAIN, error=error)
    except SageError as error:
        return Attempt(Classification.FINAL, error=error)
    except Exception as error:
        message = f"the request cannot be sent: {type(error).__name__}: {error}"[:500]
        return Attempt(Classification.FINAL, error=PoolError(message))


def classify(reply: Reply) -> Attempt:
    """The reply as an attempt. A 2xx without a result is as uncertain as a bad gateway's 502.

    >>> classify(Reply(200, b'{"data": []}')).classification.name
    'OK'
    >>> classify(Reply(200, b'{"error": {"message": "no room"}}'))[::2]
    (<Classification.UNCERTAIN: 4>, PoolError('no room'))
    >>> classify(Reply(400, b'{"error": {"message": "no model"}}'))[::2]
    (<Classification.REFUSED: 5>, PoolError('no model'))
    """
    status, body, retry_after_s = reply
    if not 200 <= status < 300:
        error = pool_error(body, status)
        return Attempt(classify_status(status), b"", error, retry_after_s)
    if wrong := _error_in(body, status):
        return Attempt(Classification.UNCERTAIN, b"", wrong, retry_after_s)
    return Attempt(Classification.OK, body)


def classify_status(status: int) -> Classification:
    """The class of an HTTP status other than 2xx; 0 is a connection that broke."""
    return _OF_STATUS.get(status, Classification.FINAL)


def _error_in(body: bytes, status: int) -> PoolError | None:
    try:
        fields: dict[str, Any] = _OBJECT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        start = body[:100].decode(errors="replace")
        return PoolError(f"the answer is no JSON object: {start!r}", status=status)
    if bytes(fields.get("error", b"null")) != b"null":
        return pool_error(body, status)
    return None
