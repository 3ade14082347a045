"""The more urgent class first, but none starves: a class is worth a head start of ``AGING_S``.

A ``low`` request goes before every ``interactive`` one that came 15 s after it, or later.
"""

from sage_gateway.scheduling.policy import Policy
from sage_gateway.scheduling.queued_request import Ticket

AGING_S = 5.0


def rank(ticket: Ticket) -> float:
    """By arrival, later by ``AGING_S`` for each class above it."""
    return ticket.arrived_s + AGING_S * ticket.priority


def policy() -> Policy:
    """Classes with aging. The last class, background, waits apart: see :mod:`line`."""
    return Policy((rank,))
