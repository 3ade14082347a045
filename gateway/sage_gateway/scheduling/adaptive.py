"""``slo`` where a deadline is in danger, else ``fair``; with one tenant that is ``fifo``.

What is looked at is the queue itself, at each turn. A deadline is in danger once half of its
time is gone: the request with the least slack has waited as long as it has left. Such requests take
every second turn at most: who names short deadlines cannot take it all. Else shares are fair; one
tenant alone begins each request where its last one ended, which is by arrival.
"""

from collections.abc import Sequence

from sage_gateway.scheduling import fair, slo
from sage_gateway.scheduling.policy import Policy
from sage_gateway.scheduling.ticket import Ticket

FAIR, SLO = 0, 1


def turn(heads: Sequence[Ticket], turns: int, now_s: float) -> int:
    """Whose head goes next."""
    hurried = heads[SLO]
    waited_s = now_s - hurried.arrived_s
    left_s = hurried.deadline_s - hurried.work_s - now_s
    return SLO if left_s < waited_s and turns % 2 == 0 else FAIR


def policy() -> Policy:
    """Fair shares and least slack, over one set of counters."""
    counters = fair.Counters()
    return Policy(
        (counters.rank, slo.rank),
        turn=turn,
        expires=True,
        served=counters.served,
        charge=counters.charge,
    )
