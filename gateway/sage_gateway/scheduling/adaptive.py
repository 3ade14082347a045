"""Fair shares, in which urgent classes borrow and a deadline in danger may be first.

Each tenant's shares are those of ``fair``; with one tenant that is the order of arrival. A class
above ``normal`` starts ``BORROWED_TOKENS`` earlier, one below it later. A borrowed start is paid
back, because the tenant's counter advances by the full cost: a tenant that marks every request as
interactive is ahead by that amount once, and then has its share like all others.

A deadline is in danger once half of its time has passed: the request with the least slack has
waited as long as it has left. Such a request is chosen at most every second time, and only within
``LEAD_TOKENS`` of the request that is next by fair shares: a tenant with short deadlines, or with
more requests than its share, cannot take all of the service.

Source: Duda and Cheriton, Borrowed-Virtual-Time Scheduling (SOSP 1999).
"""

from collections.abc import Sequence

from sage_gateway.requests.request import NORMAL
from sage_gateway.scheduling import fair, slo
from sage_gateway.scheduling.policy import SchedulingPolicy
from sage_gateway.scheduling.queued_request import QueuedRequest

FAIR, SLO = 0, 1
BORROWED_TOKENS = 1000
LEAD_TOKENS = 1000


class AdaptiveOrder:
    """One set of tenant counters for both orders."""

    def __init__(self) -> None:
        self.counters = fair.TenantCounters()

    def rank(self, request: QueuedRequest) -> float:
        """The virtual start, with the tokens that its class borrows."""
        return self.counters.rank(request, BORROWED_TOKENS * (NORMAL - request.priority))

    def choose_head(self, heads: Sequence[QueuedRequest], dispatched: int, now_s: float) -> int:
        """The order whose head is next."""
        urgent = heads[SLO]
        waited_s = now_s - urgent.arrived_s
        left_s = urgent.deadline_s - urgent.work_s - now_s
        if left_s >= waited_s or dispatched % 2:
            return FAIR
        return SLO if self.counters.lead(urgent, heads[FAIR]) <= LEAD_TOKENS else FAIR


def policy() -> SchedulingPolicy:
    """Fair shares and least slack."""
    order = AdaptiveOrder()
    return SchedulingPolicy(
        (order.rank, slo.rank),
        choose_head=order.choose_head,
        enforces_deadlines=True,
        on_dispatch=order.counters.on_dispatch,
        charge=order.counters.charge,
    )
