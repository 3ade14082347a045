"""Fair shares, in which urgent classes borrow and a deadline in danger may go first.

Each tenant's shares are those of ``fair``: with one tenant that is by arrival. A class above
``normal`` begins ``BORROWED_TOKENS`` earlier, one below it later. What is borrowed is paid back:
the tenant's counter moves on all the same, so who calls everything interactive is ahead by that
much once, and then has its share like all others.

A deadline is in danger once half of its time is gone: the request with the least slack has waited
as long as it has left. Such requests take every second turn at most, and only within
``LEAD_TOKENS`` of whose turn it would be: who names short deadlines, or sends more than its share,
cannot take it all.

Source: Duda and Cheriton, Borrowed-Virtual-Time Scheduling (SOSP 1999).
"""

from collections.abc import Sequence

from sage_gateway.requests.request import NORMAL
from sage_gateway.scheduling import fair, slo
from sage_gateway.scheduling.policy import Policy
from sage_gateway.scheduling.queued_request import Ticket

FAIR, SLO = 0, 1
BORROWED_TOKENS = 1000
LEAD_TOKENS = 1000


class Adaptive:
    """One set of counters for both orders."""

    def __init__(self) -> None:
        self.counters = fair.Counters()

    def rank(self, ticket: Ticket) -> float:
        """Where it begins, with what its class borrows."""
        return self.counters.rank(ticket, BORROWED_TOKENS * (NORMAL - ticket.priority))

    def turn(self, heads: Sequence[Ticket], turns: int, now_s: float) -> int:
        """Whose head goes next."""
        hurried = heads[SLO]
        waited_s = now_s - hurried.arrived_s
        left_s = hurried.deadline_s - hurried.work_s - now_s
        if left_s >= waited_s or turns % 2:
            return FAIR
        return SLO if self.counters.lead(hurried, heads[FAIR]) <= LEAD_TOKENS else FAIR


def policy() -> Policy:
    """Fair shares and least slack."""
    adaptive = Adaptive()
    return Policy(
        (adaptive.rank, slo.rank),
        turn=adaptive.turn,
        expires=True,
        served=adaptive.counters.served,
        charge=adaptive.counters.charge,
    )
