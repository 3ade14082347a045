"""Equal shares of the tokens for every tenant, however many requests each of them sends.

Every tenant has a virtual counter of tokens. A request starts at its tenant's counter, but not
before the virtual clock, which is the start of the last dispatched request: a tenant that was idle
has not saved anything up. The lowest start is next. Counters advance by the expected cost when a
request arrives, and are corrected when the engine has counted.

Source: Sheng et al., Fairness in Serving Large Language Models (OSDI 2024), for what is counted;
Goyal, Vin and Cheng, Start-time Fair Queueing (SIGCOMM 1996), for starts fixed on arrival.
"""

from sage_gateway.scheduling.policy import SchedulingPolicy
from sage_gateway.scheduling.queued_request import QueuedRequest

TENANTS_MIN = 1024


class TenantCounters:
    """The virtual counters. Only tenants ahead of the virtual clock are kept."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._counters: dict[str, float] = {}
        self._starts: dict[int, float] = {}
        self._tenants_max = TENANTS_MIN

    def rank(self, request: QueuedRequest, borrowed: float = 0.0) -> float:
        """The request's start, earlier by ``borrowed``; advances its tenant's counter."""
        start = max(self._clock, self._counters.get(request.tenant, 0.0))
        self._counters[request.tenant] = start + request.tokens
        self._starts[request.number] = start - borrowed
        return start - borrowed

    def lead(self, request: QueuedRequest, other: QueuedRequest) -> float:
        """How many tokens later than ``other`` a request starts; both are queued."""
        return self._starts[request.number] - self._starts[other.number]

    def on_dispatch(self, request: QueuedRequest) -> None:
        """Advance the clock to the start of the request."""
        self._clock = max(self._clock, self._starts.pop(request.number))
        if len(self._counters) > self._tenants_max:
            self._counters = {t: c for t, c in self._counters.items() if c > self._clock}
            self._tenants_max = max(TENANTS_MIN, 2 * len(self._counters))

    def charge(self, request: QueuedRequest, tokens: int) -> None:
        """Correct the cost by ``tokens``: see :class:`SchedulingPolicy`."""
        self._starts.pop(request.number, None)
        now = self._counters.get(request.tenant, self._clock)
        self._counters[request.tenant] = now + tokens


def policy() -> SchedulingPolicy:
    """Fair shares, with counters of its own."""
    counters = TenantCounters()
    return SchedulingPolicy(
        (counters.rank,), on_dispatch=counters.on_dispatch, charge=counters.charge
    )
