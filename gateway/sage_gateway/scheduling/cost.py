"""The cheapest first, but none starves: a token more is worth ``TOKEN_S`` of having come earlier.

A request of 1,000 tokens goes before every one of a few tokens that came 10 s after it, or later.
"""

from sage_gateway.scheduling.policy import Policy
from sage_gateway.scheduling.queued_request import Ticket

TOKEN_S = 0.01


def rank(ticket: Ticket) -> float:
    """By arrival, later by ``TOKEN_S`` for each token that it is expected to cost."""
    return ticket.arrived_s + TOKEN_S * ticket.tokens


def policy() -> Policy:
    """Shortest expected work first, with aging."""
    return Policy((rank,))
