"""A model's counters over the last seconds, as the inputs of a decision: pure.

The window begins anew when the number of ready replicas changes: what was waited for before says
nothing of those that are there now.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sage_gateway.autoscaling.inputs import Inputs
from sage_gateway.autoscaling.streams import Job
from sage_gateway.models.load import Load, quantile_ms

WINDOW_S = 10.0


@dataclass(frozen=True, slots=True)
class Standing:
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
class _Reading:
    at_s: float
    standing: Standing
    counts: tuple[int, ...]
    spreads: tuple[tuple[int, ...], ...]


class Window:
    """Readings of one model, of ``WINDOW_S`` at most."""

    def __init__(self) -> None:
        self._readings: deque[_Reading] = deque()

    def read(self, load: Load, standing: Standing, now_s: float, jobs: Sequence[Job]) -> Inputs:
        """Take a reading; what came of the model since the oldest one kept."""
        kept = self._readings
        if kept and kept[-1].standing.ready != standing.ready:
            kept.clear()
        counts = (load.arrived, load.answered, load.prompt_tokens, load.completion_tokens)
        spreads = tuple(tuple(s.counts) for s in (load.waits, load.ttfts, load.tpots))
        kept.append(_Reading(now_s, standing, counts, spreads))
        while len(kept) > 2 and kept[1].at_s <= now_s - WINDOW_S:
            kept.popleft()
        return _inputs(kept, load.asked_s, jobs)


def _inputs(kept: Sequence[_Reading], asked_s: float, jobs: Sequence[Job]) -> Inputs:
    old, new = kept[0], kept[-1]
    seconds = new.at_s - old.at_s
    pairs = zip(old.counts, new.counts, strict=True)
    rates = [(b - a) / seconds if seconds > 0 else 0.0 for a, b in pairs]
    waits, ttfts, tpots = (
        [b - a for a, b in zip(*both, strict=True)]
        for both in zip(old.spreads, new.spreads, strict=True)
    )
    now = new.standing
    return Inputs(
        replicas=now.replicas,
        ready=now.ready,
        starting=now.starting,
        queue_length=now.queue_length,
        background=now.background,
        queue_wait_ms_p50=quantile_ms(waits, 0.5) or 0.0,
        queue_wait_ms_p99=quantile_ms(waits, 0.99) or 0.0,
        queue_oldest_ms=now.oldest_s * 1000,
        waited_s=sum(b.at_s - a.at_s for a, b in pairwise(kept) if b.standing.queue_length),
        in_flight=now.in_flight,
        in_flight_peak=max(one.standing.in_flight for one in kept),
        limit=now.limit,
        arrival_rate=rates[0],
        served_rate=rates[1],
        refused=now.refused - old.standing.refused,
        prompt_tokens_rate=rates[2],
        completion_tokens_rate=rates[3],
        ttft_ms_p99=quantile_ms(ttfts, 0.99),
        tpot_ms_p99=quantile_ms(tpots, 0.99),
        idle_s=max(0.0, new.at_s - asked_s),
        jobs=tuple(jobs),
    )
