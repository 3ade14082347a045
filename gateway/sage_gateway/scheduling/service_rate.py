"""The service rate of a queue, and the Retry-After of a full one: pure.

The clock runs only while requests are queued. Counted over idle time too, the rate would be that of
the callers, and after a quiet hour the first burst would get a Retry-After of a minute.
"""

from dataclasses import dataclass
from math import ceil, exp

MEMORY_S = 10.0
RETRY_MAX_S = 60


@dataclass(frozen=True, slots=True)
class ServiceRate:
    """How many requests were dispatched in how many seconds; both decay over ``MEMORY_S``."""

    dispatched: float = 0.0
    seconds: float = 0.0
    at_s: float = 0.0


def resume(measured: ServiceRate, now_s: float) -> ServiceRate:
    """The first request is queued after the queue was empty."""
    return ServiceRate(measured.dispatched, measured.seconds, now_s)


def record(measured: ServiceRate, now_s: float, dispatched: int = 1) -> ServiceRate:
    """The rate after some more requests were dispatched."""
    share = exp(-max(0.0, now_s - measured.at_s) / MEMORY_S)
    seconds = measured.seconds * share + MEMORY_S * (1 - share)
    return ServiceRate(measured.dispatched * share + dispatched, seconds, now_s)


def per_second(measured: ServiceRate, now_s: float) -> float:
    """Dispatched requests per second, 0 without a measurement. Falls while dispatching stalls."""
    now = record(measured, now_s, 0)
    return now.dispatched / now.seconds if now.seconds > 0 else 0.0


def retry_after_s(measured: ServiceRate, queued: int, now_s: float) -> int:
    """Whole seconds until the queued requests are dispatched: 1 to ``RETRY_MAX_S``.

    1 before the first dispatch: the rate is unknown then, and a retry is what measures it.
    """
    if measured.dispatched == 0:
        return 1
    rate = per_second(measured, now_s)
    seconds = (queued + 1) / rate if rate > 0 else RETRY_MAX_S
    return max(1, ceil(min(RETRY_MAX_S, seconds)))
