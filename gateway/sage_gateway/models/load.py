"""What a model has done so far: plain counters that the data plane adds to, and nothing else.

They only rise; :mod:`window` takes the difference of two readings. A spread counts in buckets, each
a quarter wider than the last, so that a percentile costs the data plane one addition.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

BUCKETS = 64
GROWTH = 1.25
_LOG = math.log(GROWTH)
JOBS_MAX = 32


class Spread:
    """How many durations fell into each bucket: below 1 ms, then up to 20 minutes."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS

    def add(self, seconds: float) -> None:
        """Count one."""
        ms = seconds * 1000
        at = 0 if ms < 1 else min(BUCKETS - 1, 1 + int(math.log(ms) / _LOG))
        self.counts[at] += 1


def quantile_ms(counts: Sequence[int], share: float) -> float | None:
    """The duration that ``share`` of those counted do not exceed, within 12 %; None of none.

    >>> spread = Spread()
    >>> for _ in range(99):
    ...     spread.add(0.0)
    >>> spread.add(2.0)
    >>> quantile_ms(spread.counts, 0.99), round(quantile_ms(spread.counts, 1.0), -1)
    (0.0, 2200.0)
    """
    wanted = share * sum(counts)
    seen = 0
    for at, count in enumerate(counts):
        seen += count
        if count and seen >= wanted - 1e-9:
            return GROWTH ** (at - 0.5) if at else 0.0
    return None


@dataclass(slots=True, eq=False)
class Load:
    """One model's counters. ``asked_s``: when anybody last asked or was answered, monotonic.

    Of a new one that is now. ``jobs``: the Flink jobs that asked, background aside, and when each
    last did.
    """

    asked_s: float = field(default_factory=time.monotonic)
    arrived: int = 0
    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    waits: Spread = field(default_factory=Spread)
    ttfts: Spread = field(default_factory=Spread)
    tpots: Spread = field(default_factory=Spread)
    jobs: dict[str, float] = field(default_factory=dict)

    def asked(self, now_s: float, job: str) -> None:
        """A request has come."""
        self.arrived += 1
        self.asked_s = now_s
        if job and (job in self.jobs or len(self.jobs) < JOBS_MAX):
            self.jobs[job] = now_s

    def ended(self, used: Mapping[str, int], now_s: float) -> None:
        """One is answered; the engine counted ``used``."""
        self.answered += 1
        self.asked_s = now_s
        self.prompt_tokens += used.get("in", 0)
        self.completion_tokens += used.get("out", 0)

    def streamed(self, ttft_s: float, rest_s: float, tokens: int) -> None:
        """A stream is over: its first bytes took ``ttft_s``, the ``tokens`` after it ``rest_s``."""
        self.ttfts.add(ttft_s)
        if tokens > 1:
            self.tpots.add(rest_s / (tokens - 1))
