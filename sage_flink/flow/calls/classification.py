"""One request to the pool and what it means: answered, worth asking again, or refused for good.

Values throughout: whatever a request comes to, nothing here raises. The rules are the Java call's
too (``connectors/native``, HttpReply and Backoff), so that every target retries alike.
"""

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum, auto
from typing import Any, NamedTuple

import msgspec

from sage_flink.common.errors import PoolAway, PoolError, PoolTimeout, SageError
from sage_flink.common.openai import error_message
from sage_flink.flow.ports import Reply

BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0

#: ``Pool.post``: path, body, headers -> the reply.
Post = Callable[[str, bytes, Mapping[str, str]], Awaitable[Reply]]
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Verdict(Enum):
    """What an answer says about asking again, and about the guilt of what was asked."""

    OK = auto()
    #: No connection: nothing was asked.
    AWAY = auto()
    #: Load or start-up: the same request may be answered later or elsewhere.
    BUSY = auto()
    #: It may pass, or the content of the request does it: a text that crashes the engine.
    DOUBTFUL = auto()
    #: The content is refused: a part of it may be taken.
    REFUSED = auto()
    #: Asking again, or for less, changes nothing.
    FINAL = auto()

    @property
    def may_pass(self) -> bool:
        """Whether the same request may be answered another time."""
        return self in (Verdict.AWAY, Verdict.BUSY, Verdict.DOUBTFUL)

    @property
    def may_be_the_content(self) -> bool:
        """Whether a part of the request might be answered where the whole was not."""
        return self in (Verdict.REFUSED, Verdict.DOUBTFUL)


_OF_STATUS = {
    **dict.fromkeys((408, 429, 503), Verdict.BUSY),
    **dict.fromkeys((0, 500, 502, 504), Verdict.DOUBTFUL),
    **dict.fromkeys((400, 413, 422), Verdict.REFUSED),
}


class Attempt(NamedTuple):
    """What one request came to; ``error`` is None exactly when the verdict is OK."""

    verdict: Verdict
    body: bytes = b""
    error: SageError | None = None
    retry_after_s: float = 0.0


async def attempt(post: Post, path: str, body: bytes, headers: Mapping[str, str]) -> Attempt:
    """One request, judged. Only a cancellation gets out of it."""
    try:
        return judged(await post(path, body, headers))
    except PoolAway as error:
        return Attempt(Verdict.AWAY, error=error)
    except PoolError as error:
        # Of a status that is good by itself the answer is not: too large, say.
        verdict = Verdict.REFUSED if 200 <= error.status < 300 else verdict_of(error.status)
        return Attempt(verdict, error=error)
    except PoolTimeout as error:
        return Attempt(Verdict.DOUBTFUL, error=error)
    except SageError as error:
        return Attempt(Verdict.FINAL, error=error)
    except Exception as error:
        said = PoolError(f"the request cannot be sent: {type(error).__name__}: {error}"[:500])
        return Attempt(Verdict.FINAL, error=said)


def judged(reply: Reply) -> Attempt:
    """The reply as an attempt. A 2xx that carries no answer is in doubt like a bad gateway's 502.

    >>> judged(Reply(200, b'{"data": []}')).verdict.name
    'OK'
    >>> judged(Reply(200, b'{"error": {"message": "no room"}}'))[::2]
    (<Verdict.DOUBTFUL: 4>, PoolError('no room'))
    >>> judged(Reply(400, b'{"error": {"message": "no model"}}'))[::2]
    (<Verdict.REFUSED: 5>, PoolError('no model'))
    """
    status, body, retry_after_s = reply
    if not 200 <= status < 300:
        error = PoolError(error_message(body, status), status=status)
        return Attempt(verdict_of(status), b"", error, retry_after_s)
    if wrong := _wrong(body, status):
        return Attempt(Verdict.DOUBTFUL, b"", wrong, retry_after_s)
    return Attempt(Verdict.OK, body)


def verdict_of(status: int) -> Verdict:
    """What an HTTP status that is not 2xx says; 0 is a connection that broke."""
    return _OF_STATUS.get(status, Verdict.FINAL)


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
