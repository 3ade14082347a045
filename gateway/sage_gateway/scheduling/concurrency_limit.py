"""The measured concurrency limit of a replica, as pure functions.

Latency stays flat while an engine has room, and rises in proportion once requests queue inside it.
After each window of responses their mean is compared with the *floor*, the mean without such
queueing. Below ``TOLERANCE`` times the floor (a fuller batch is slower for each request, and better
for all) the limit rises by its square root; above, it shrinks by as much as latency is too high, by
half at most. A lost engine halves it. A limit that was not used is not evidence.

**The floor must be measured again.** At its best limit an engine never shows its floor; and when
prompts grow, latency is high at any limit. So every ``PROBE_STEPS`` steps, or after ``SHRUNK_MAX``
shrinkings in a row, the limit is ``PROBE`` of itself for two windows: in the first the requests in
flight finish, the mean of the second is the floor. That share is less than 1 over ``TOLERANCE``, so
that a floor measured too high corrects itself; a floor that drifts up would raise the limit without
end.

Source: the Gradient2 limit of Netflix's concurrency-limits; BBR (Cardwell et al., 2016) for the
probing; the halving is AIMD's.
"""

import math
from dataclasses import dataclass, replace

from sage_gateway.config.pool_spec import CONCURRENCY_MAX

START = 8.0
LEAST = 1.0
WINDOW_MIN = 16
TOLERANCE = 2.0
NEAR = 0.75
PROBE = 0.25
PROBE_STEPS = 20
SHRUNK_MAX = 3


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """A replica's limit, the responses of the current window, and the state of the measurement.

    ``probes``: how many windows of a probe are still to run; ``before``: the limit to restore.
    """

    value: float = START
    floor_s: float = math.inf
    sum_s: float = 0.0
    count: int = 0
    busiest: int = 0
    steps: int = 0
    shrunk: int = 0
    probes: int = 0
    before: float = START

    @property
    def concurrency(self) -> int:
        """Whole requests."""
        return int(self.value)


def record_latency(limit: ConcurrencyLimit, seconds: float, in_flight: int) -> ConcurrencyLimit:
    """The limit after a complete response that took ``seconds``, itself one of ``in_flight``."""
    limit = replace(
        limit,
        sum_s=limit.sum_s + seconds,
        count=limit.count + 1,
        busiest=max(limit.busiest, in_flight),
    )
    return limit if limit.count < _window(limit) else _step(limit)


def record_loss(limit: ConcurrencyLimit) -> ConcurrencyLimit:
    """The limit after the engine was lost with a request."""
    half, before = max(LEAST, limit.value / 2), max(LEAST, limit.before / 2)
    return replace(limit, value=half, before=before)


def _window(limit: ConcurrencyLimit) -> int:
    """A number of responses of which those sent under the last limit are the smaller part."""
    return max(WINDOW_MIN, 2 * limit.concurrency)


def _step(limit: ConcurrencyLimit) -> ConcurrencyLimit:
    mean_s = limit.sum_s / limit.count
    fresh = replace(limit, sum_s=0.0, count=0, busiest=0)
    if limit.probes > 1:
        return replace(fresh, probes=limit.probes - 1)
    if limit.probes:
        return replace(fresh, probes=0, steps=0, shrunk=0, floor_s=mean_s, value=limit.before)
    floor_s = min(mean_s, limit.floor_s)
    slower = mean_s / floor_s if floor_s else 1.0
    if slower > TOLERANCE:
        value = max(LEAST, limit.value * max(0.5, TOLERANCE / slower))
        return _maybe_probe(replace(fresh, floor_s=floor_s, value=value, shrunk=limit.shrunk + 1))
    if limit.busiest < NEAR * limit.concurrency:
        return replace(fresh, floor_s=floor_s, shrunk=0)
    value = min(float(CONCURRENCY_MAX), limit.value + math.sqrt(limit.value))
    return _maybe_probe(replace(fresh, floor_s=floor_s, value=value, shrunk=0))


def _maybe_probe(limit: ConcurrencyLimit) -> ConcurrencyLimit:
    if limit.steps + 1 < PROBE_STEPS and limit.shrunk < SHRUNK_MAX:
        return replace(limit, steps=limit.steps + 1)
    return replace(limit, probes=2, before=limit.value, value=max(LEAST, PROBE * limit.value))
