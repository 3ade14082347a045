"""The cheapest request first, without starvation: a token costs ``TOKEN_S`` of arrival time.

A request of 1,000 tokens precedes every request of a few tokens that arrived 10 s after it, or
later.
"""

from sage_gateway.scheduling.policy import SchedulingPolicy
from sage_gateway.scheduling.queued_request import QueuedRequest

TOKEN_S = 0.01


def rank(request: QueuedRequest) -> float:
    """By arrival, later by ``TOKEN_S`` for each token of the expected cost."""
    return request.arrived_s + TOKEN_S * request.tokens


def policy() -> SchedulingPolicy:
    """Shortest expected work first, with aging."""
    return SchedulingPolicy((rank,))
