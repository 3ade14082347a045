"""The cheapest request first, without starvation: a token costs ``TOKEN_S`` of arrival time.

A request of 1,000 tokens precedes every request of a few tokens that arrived 10 s after it, or
later. No request waits longer for its size than ``SIZE_S_MAX``, less than requests wait in a queue
by default (30 s): a large one would else be refused under a steady load of small ones.
"""

from sage_gateway.scheduling.policy import SchedulingPolicy
from sage_gateway.scheduling.queued_request import QueuedRequest

TOKEN_S = 0.01
SIZE_S_MAX = 20.0


def rank(request: QueuedRequest) -> float:
    """By arrival, later by ``TOKEN_S`` for each token of the expected cost, to ``SIZE_S_MAX``."""
    return request.arrived_s + min(TOKEN_S * request.tokens, SIZE_S_MAX)


def policy() -> SchedulingPolicy:
    """Shortest expected work first, with aging."""
    return SchedulingPolicy((rank,))
