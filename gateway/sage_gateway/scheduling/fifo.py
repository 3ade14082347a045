"""Who came first goes first."""

from sage_gateway.scheduling.policy import Policy
from sage_gateway.scheduling.queued_request import Ticket


def rank(ticket: Ticket) -> float:
    """By arrival."""
    return ticket.arrived_s


def policy() -> Policy:
    """First in, first out."""
    return Policy((rank,))
