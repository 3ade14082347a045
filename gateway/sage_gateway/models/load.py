"""The load of a model: plain counters that the data plane increments.

They only rise; :mod:`sage_gateway.autoscaling.window` takes the difference of two readings.
Durations are counted in buckets, each a quarter wider than the last, so that a percentile costs the
data plane one addition.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

BUCKETS = 64
GROWTH = 1.25
_LOG = math.log(GROWTH)
JOBS_MAX = 32
PACE_SHARE = 0.1


class DurationHistogram:
    """Counts of durations by bucket: below 1 ms, then up to 20 minutes."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts = [0] * BUCKETS

    def add(self, seconds: float) -> None:
        """Count one duration."""
        ms = seconds * 1000
        at = 0 if ms < 1 else min(BUCKETS - 1, 1 + int(math.log(ms) / _LOG))
        self.counts[at] += 1


def quantile_ms(counts: Sequence[int], share: float) -> float | None:
    """The duration that ``share`` of the counted ones do not exceed, within 12 %.

    None without counts.

    >>> histogram = DurationHistogram()
    >>> for _ in range(99):
    ...     histogram.add(0.0)
    >>> histogram.add(2.0)
    >>> quantile_ms(histogram.counts, 0.99), round(quantile_ms(histogram.counts, 1.0), -1)
    (0.0, 2200.0)
    """
    wanted = share * sum(counts)
    total = 0
    for at, count in enumerate(counts):
        total += count
        if count and total >= wanted - 1e-9:
            return GROWTH ** (at - 0.5) if at else 0.0
    return None


@dataclass(slots=True, eq=False)
class Load:
    """The counters of one model.

    ``active_s``: the time of the last request or response, monotonic; of a new model its creation.
    ``jobs``: the Flink jobs that sent requests, background excluded, with the time of the last.
    ``token_s``: seconds of a whole answer for each token, of the last ones; 0 before the first.
    """

    active_s: float = field(default_factory=time.monotonic)
    arrived: int = 0
    answered: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    waits: DurationHistogram = field(default_factory=DurationHistogram)
    ttfts: DurationHistogram = field(default_factory=DurationHistogram)
    tpots: DurationHistogram = field(default_factory=DurationHistogram)
    jobs: dict[str, float] = field(default_factory=dict)
    token_s: float = 0.0

    def record_pace(self, seconds: float, used: Mapping[str, int]) -> None:
        """Learn from a whole answer how long a token takes: of its text, or else of the prompt."""
        if tokens := used.get("out") or used.get("in"):
            pace_s = seconds / tokens
            self.token_s += (pace_s - self.token_s) * (PACE_SHARE if self.token_s else 1.0)

    def tokens_in(self, seconds: float) -> int:
        """The tokens that an engine makes in this time for one request; 0 if that is unknown."""
        return int(seconds / self.token_s) if self.token_s else 0

    def record_request(self, now_s: float, job: str) -> None:
        """Count a request on arrival."""
        self.arrived += 1
        self.active_s = now_s
        if job and (job in self.jobs or len(self.jobs) < JOBS_MAX):
            self.jobs[job] = now_s

    def record_response(self, used: Mapping[str, int], now_s: float) -> None:
        """Count a response, with the tokens ``used`` that the engine reported."""
        self.answered += 1
        self.active_s = now_s
        self.prompt_tokens += used.get("in", 0)
        self.completion_tokens += used.get("out", 0)

    def record_stream(self, ttft_s: float, rest_s: float, tokens: int) -> None:
        """Count a finished stream: the time to its first bytes, and of its ``tokens`` after it."""
        self.ttfts.add(ttft_s)
        if tokens > 1:
            self.tpots.add(rest_s / (tokens - 1))
