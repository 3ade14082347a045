"""The counters of a model over the last seconds, as the inputs of a decision: pure.

The window is cleared when the number of ready replicas changes: earlier waits are no evidence about
the current replicas.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sage_gateway.autoscaling.inputs import Inputs
from sage_gateway.autoscaling.streams import JobStatus
from sage_gateway.models.load import Load, quantile_ms

WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """The replicas and the queue of a model at one moment; ``refused`` only rises."""

    replicas: int
    ready: int
    starting: int
    in_flight: int
    limit: int
    queue_length: int = 0
    background: int = 0
    oldest_s: float = 0.0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class _LoadReading:
    at_s: float
    status: ModelStatus
    counts: tuple[int, ...]
    spreads: tuple[tuple[int, ...], ...]


class LoadWindow:
    """The readings of one model over the last ``WINDOW_S``."""

    def __init__(self) -> None:
        self._readings: deque[_LoadReading] = deque()

    def read(
        self, load: Load, status: ModelStatus, now_s: float, jobs: Sequence[JobStatus]
    ) -> Inputs:
        """Add a reading; the inputs since the oldest reading of the window."""
        readings = self._readings
        if readings and readings[-1].status.ready != status.ready:
            readings.clear()
        counts = (load.arrived, load.answered, load.prompt_tokens, load.completion_tokens)
        spreads = tuple(tuple(s.counts) for s in (load.waits, load.ttfts, load.tpots))
        readings.append(_LoadReading(now_s, status, counts, spreads))
        while len(readings) > 2 and readings[1].at_s <= now_s - WINDOW_S:
            readings.popleft()
        return _inputs(readings, load.active_s, jobs)


def _inputs(readings: Sequence[_LoadReading], active_s: float, jobs: Sequence[JobStatus]) -> Inputs:
    old, new = readings[0], readings[-1]
    seconds = new.at_s - old.at_s
    pairs = zip(old.counts, new.counts, strict=True)
    rates = [(b - a) / seconds if seconds > 0 else 0.0 for a, b in pairs]
    waits, ttfts, tpots = (
        [b - a for a, b in zip(*both, strict=True)]
        for both in zip(old.spreads, new.spreads, strict=True)
    )
    now = new.status
    return Inputs(
        replicas=now.replicas,
        ready=now.ready,
        starting=now.starting,
        queue_length=now.queue_length,
        background=now.background,
        queue_wait_ms_p50=quantile_ms(waits, 0.5) or 0.0,
        queue_wait_ms_p99=quantile_ms(waits, 0.99) or 0.0,
        queue_oldest_ms=now.oldest_s * 1000,
        waited_s=sum(b.at_s - a.at_s for a, b in pairwise(readings) if b.status.queue_length),
        in_flight=now.in_flight,
        in_flight_peak=max(one.status.in_flight for one in readings),
        limit=now.limit,
        arrival_rate=rates[0],
        served_rate=rates[1],
        refused=now.refused - old.status.refused,
        prompt_tokens_rate=rates[2],
        completion_tokens_rate=rates[3],
        ttft_ms_p99=quantile_ms(ttfts, 0.99),
        tpot_ms_p99=quantile_ms(tpots, 0.99),
        idle_s=max(0.0, new.at_s - active_s),
        jobs=tuple(jobs),
    )
