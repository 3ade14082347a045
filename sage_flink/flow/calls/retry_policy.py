"""Retry policy of a call: how many attempts one request body gets, and the pauses between them.

An attempt that finds no connection has sent no request and does not count: while the pool is
unreachable, during a restart for example, calls wait for it within their budget, and backpressure
reaches the stream.
"""

from dataclasses import dataclass, replace

from sage_flink.common.errors import PoolTimeout, SageError
from sage_flink.flow.calls.classification import Attempt, Classification

BACKOFF_FIRST_S = 0.1
BACKOFF_MOST_S = 5.0
#: A connection attempt costs little: reconnect within 0.8 s of the pool's return.
_UNREACHABLE_STEP_MAX = 4


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The attempts made with one body, and the limits on those that count.

    ``uncertain_max`` is the limit while the content may be the cause, ``attempts_max`` otherwise.
    """

    attempts_max: int
    uncertain_max: int
    made: int = 0
    counted: int = 0

    def after(self, tried: Attempt) -> "RetryPolicy":
        """The policy with one more attempt."""
        reached = tried.classification is not Classification.UNREACHABLE
        return replace(self, made=self.made + 1, counted=self.counted + reached)

    def allows(self, kind: Classification) -> bool:
        """Whether the same body may be sent again after an attempt of this class."""
        if kind is Classification.UNREACHABLE:
            return True
        limit = self.uncertain_max if kind is Classification.UNCERTAIN else self.attempts_max
        return kind.retryable and self.counted < limit

    def pause_s(self, tried: Attempt, chance: float) -> float:
        """Seconds to wait after ``tried``, which :meth:`after` has counted."""
        unreachable = tried.classification is Classification.UNREACHABLE
        step = min(self.made, _UNREACHABLE_STEP_MAX) if unreachable else max(self.counted, 1)
        return backoff_s(step, tried.retry_after_s, chance)


def backoff_s(attempts: int, retry_after_s: float, chance: float) -> float:
    """Seconds to wait after ``attempts`` attempts, with ``chance`` drawn from 0 to 1.

    Exponential with full jitter, so that callers refused together do not retry together, and never
    sooner than the pool asked for.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.

    >>> [backoff_s(n, 0, 1.0) for n in (1, 2, 3, 9)], backoff_s(1, 2.5, 0.0)
    ([0.1, 0.2, 0.4, 5.0], 2.5)
    """
    ceiling: float = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(attempts - 1, 10))
    return retry_after_s + chance * ceiling


def out_of_time(limit_s: float, last: SageError | None) -> PoolTimeout:
    """The error of a call that used up its budget, with the error of its last attempt."""
    message = f"; the last attempt: {last}" if last else ""
    return PoolTimeout(f"no answer within {limit_s:.4g} s{message}")
