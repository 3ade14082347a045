"""One request to the pool and what it means: answered, worth asking again, or refused for good.

Values throughout: whatever a request comes to, nothing here raises. The rules are the Java call's
too (``connectors/native``), so that every target retries alike.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from sage_flink.common.errors import PoolError, PoolTimeout, SageError
from sage_flink.common.openai import error_message
from sage_flink.flow.ports import Reply

#: Load, start-up or a broken way (0): the same request may be answered later or elsewhere.
PASSING = frozenset({0, 408, 429, 500, 502, 503, 504})
BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0

#: ``Pool.post``: path, body, headers -> the reply.
Post = Callable[[str, bytes, Mapping[str, str]], Awaitable[Reply]]
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Attempt(NamedTuple):
    """What one request came to: answered exactly when ``error`` is None."""

    body: bytes = b""
    error: SageError | None = None
    #: Whether asking again may help, and how long the pool wants to be left alone first.
    passing: bool = False
    retry_after_s: float = 0.0


async def attempt(post: Post, path: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
    """One request, judged. Only a cancellation gets out of it."""
    try:
        return judged(await post(path, body, headers))
    except PoolError as error:
        return Attempt(error=error, passing=error.status in PASSING)
    except PoolTimeout as error:
        return Attempt(error=error, passing=True)
    except SageError as error:
        return Attempt(error=error)
    except Exception as error:
        said = PoolError(f"the request cannot be sent: {type(error).__name__}: {error}"[:500])
        return Attempt(error=said)


def judged(reply: Reply) -> Attempt:
    """The reply as an attempt. A 2xx that carries no answer counts as a bad gateway's 502.

    >>> judged(Reply(200, b'{"data": []}')).error is None
    True
    >>> judged(Reply(200, b'{"error": {"message": "no room"}}'))[1:3]
    (PoolError('no room'), True)
    >>> judged(Reply(400, b'{"error": {"message": "no model"}}'))[1:3]
    (PoolError('no model'), False)
    """
    status, body, retry_after_s = reply
    if 200 <= status < 300:
        wrong = _wrong(body, status)
        return Attempt(body, wrong, wrong is not None, retry_after_s)
    error = PoolError(error_message(body, status), status=status)
    return Attempt(b"", error, status in PASSING, retry_after_s)


def backoff_s(attempts: int, retry_after_s: float, chance: float) -> float:
    """How long to wait after ``attempts`` attempts, ``chance`` drawn from 0 to 1.

    Exponential with full jitter, so that callers refused together do not come back together, and
    never sooner than the pool asked for.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    >>> [backoff_s(n, 0, 1.0) for n in (1, 2, 3, 9)], backoff_s(1, 2.5, 0.0)
    ([0.1, 0.2, 0.4, 5.0], 2.5)
    """
    ceiling: float = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(attempts - 1, 10))
    return retry_after_s + chance * ceiling


def out_of_time(limit_s: float, last: SageError | None) -> PoolTimeout:
    """The error of a call whose time is over, with what its last attempt said."""
    said = f"; the last attempt: {last}" if last else ""
    return PoolTimeout(f"no answer within {limit_s:.4g} s{said}")


def _wrong(body: bytes, status: int) -> PoolError | None:
    try:
        fields: dict[str, Any] = _OBJECT.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        start = body[:100].decode(errors="replace")
        return PoolError(f"the answer is no JSON object: {start!r}", status=status)
    if bytes(fields.get("error", b"null")) != b"null":
        return PoolError(error_message(body, status), status=status)
    return None
