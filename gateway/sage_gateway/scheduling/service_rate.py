"""How fast a queue drains, and when to come back to one that is full: pure.

The clock runs only while somebody waits. Counted over idle time too, the rate would be that of the
callers, and after a quiet hour the first burst would be told to stay away for a minute.
"""

from dataclasses import dataclass
from math import ceil, exp

MEMORY_S = 10.0
RETRY_MAX_S = 60


@dataclass(frozen=True, slots=True)
class Drain:
    """How many were let go, and in how many seconds; both fade over ``MEMORY_S``."""

    let_go: float = 0.0
    seconds: float = 0.0
    at_s: float = 0.0


def resumed(drain: Drain, now_s: float) -> Drain:
    """Somebody begins to wait, after nobody did."""
    return Drain(drain.let_go, drain.seconds, now_s)


def drained(drain: Drain, now_s: float, let_go: int = 1) -> Drain:
    """Some more were let go."""
    kept = exp(-max(0.0, now_s - drain.at_s) / MEMORY_S)
    seconds = drain.seconds * kept + MEMORY_S * (1 - kept)
    return Drain(drain.let_go * kept + let_go, seconds, now_s)


def rate(drain: Drain, now_s: float) -> float:
    """How many are let go a second; 0 where nothing is known. Falls while nobody is."""
    now = drained(drain, now_s, 0)
    return now.let_go / now.seconds if now.seconds > 0 else 0.0


def retry_after_s(drain: Drain, waiting: int, now_s: float) -> int:
    """Whole seconds until those who wait are gone: at least 1, ``RETRY_MAX_S`` at most.

    1 where nobody was ever let go: then nothing is known, and asking again is how it gets known.
    """
    if drain.let_go == 0:
        return 1
    a_second = rate(drain, now_s)
    seconds = (waiting + 1) / a_second if a_second > 0 else RETRY_MAX_S
    return max(1, ceil(min(RETRY_MAX_S, seconds)))
