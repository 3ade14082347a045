"""Tenants get equal shares of the tokens, however many requests each of them sends.

Every tenant has a virtual counter of tokens. A request begins where its tenant's counter stands,
but not behind the clock, which is where the last one let go began: who was away saves nothing up.
The lowest beginning goes first. Counters move by the expected cost when a request comes, and are
corrected when the engine has counted.

Source: Sheng et al., Fairness in Serving Large Language Models (OSDI 2024), for what is counted;
Goyal, Vin and Cheng, Start-time Fair Queueing (SIGCOMM 1996), for beginnings fixed on arrival.
"""

from sage_gateway.scheduling.policy import Policy
from sage_gateway.scheduling.queued_request import Ticket

TENANTS_MIN = 1024


class Counters:
    """The virtual counters. Only tenants ahead of the clock are remembered."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._counters: dict[str, float] = {}
        self._beginnings: dict[int, float] = {}
        self._tenants_max = TENANTS_MIN

    def rank(self, ticket: Ticket, borrowed: float = 0.0) -> float:
        """Where it begins, earlier by what is ``borrowed``; its tenant's counter moves on."""
        begins = max(self._clock, self._counters.get(ticket.tenant, 0.0))
        self._counters[ticket.tenant] = begins + ticket.tokens
        self._beginnings[ticket.number] = begins - borrowed
        return begins - borrowed

    def lead(self, ticket: Ticket, other: Ticket) -> float:
        """How many tokens later than ``other`` it begins; both wait."""
        return self._beginnings[ticket.number] - self._beginnings[other.number]

    def served(self, ticket: Ticket) -> None:
        """The clock moves on to where it began."""
        self._clock = max(self._clock, self._beginnings.pop(ticket.number))
        if len(self._counters) > self._tenants_max:
            self._counters = {t: c for t, c in self._counters.items() if c > self._clock}
            self._tenants_max = max(TENANTS_MIN, 2 * len(self._counters))

    def charge(self, ticket: Ticket, tokens: int) -> None:
        """It cost so many more; fewer than none where it was never served."""
        self._beginnings.pop(ticket.number, None)
        now = self._counters.get(ticket.tenant, self._clock)
        self._counters[ticket.tenant] = now + tokens


def policy() -> Policy:
    """Fair shares, with counters of its own."""
    counters = Counters()
    return Policy((counters.rank,), served=counters.served, charge=counters.charge)
