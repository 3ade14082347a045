"""The least slack first; who can no more be answered in time is refused before it costs a token.

Slack is the time to the deadline less what the engine is expected to take. The deadline alone will
not do: under overload every request would be let go just before its deadline and be late. What the
engine takes is a coarse guess (expected tokens times a measured pace), so only ``SURE`` of it
counts when one is refused: serving one that comes late costs less than refusing one that had time.
"""

import math

from sage_gateway.scheduling.policy import Policy
from sage_gateway.scheduling.queued_request import Ticket

SURE = 0.5
NO_DEADLINE_S = 30.0


def rank(ticket: Ticket) -> float:
    """By the time at which the engine must begin; without a deadline, as if it were 30 s off."""
    if math.isinf(ticket.deadline_s):
        return ticket.arrived_s + NO_DEADLINE_S - ticket.work_s
    return ticket.deadline_s - ticket.work_s


def expired(ticket: Ticket, now_s: float) -> bool:
    """Whether its deadline is over, or would be before the engine is halfway."""
    return now_s + SURE * ticket.work_s > ticket.deadline_s


def late(ticket: Ticket, now_s: float) -> bool:
    """Whether it would be answered after its deadline, were the guess of its work right."""
    return now_s + ticket.work_s > ticket.deadline_s


def policy() -> Policy:
    """Least slack first."""
    return Policy((rank,), expires=True)
