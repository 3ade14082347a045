"""Least slack first; a request that cannot meet its deadline is refused before it costs a token.

Slack is the time to the deadline less what the engine is expected to take. The deadline alone is
not enough: under overload every request would be dispatched just before its deadline and miss it.
What the engine takes is a coarse estimate (expected tokens times a measured pace), so only
``CERTAIN_WORK_SHARE`` of it counts for a refusal: serving a request that misses its deadline costs
less than refusing one that had time.

A soft deadline orders the requests of pipelines by how far their streams lag. Such a request ranks
as if its deadline were 30 s after the soft one, and 30 s after its arrival where that is over: a
stream that is late precedes those that have time left, but not before users with a deadline.
"""

import math

from sage_gateway.scheduling.policy import SchedulingPolicy
from sage_gateway.scheduling.queued_request import QueuedRequest

CERTAIN_WORK_SHARE = 0.5
NO_DEADLINE_S = 30.0


def rank(request: QueuedRequest) -> float:
    """By the latest start of the engine; without a deadline, as if it were 30 s after arrival."""
    soft_s = max(request.arrived_s, request.soft_deadline_s) + NO_DEADLINE_S
    deadline_s = min(request.deadline_s, soft_s)
    if math.isinf(deadline_s):
        deadline_s = request.arrived_s + NO_DEADLINE_S
    return deadline_s - request.work_s


def is_expired(request: QueuedRequest, now_s: float) -> bool:
    """Whether its deadline is over, or would be before the engine is halfway."""
    return now_s + CERTAIN_WORK_SHARE * request.work_s > request.deadline_s


def is_overdue(request: QueuedRequest, now_s: float) -> bool:
    """Whether it would be answered after its deadline, if the estimate of its work is right."""
    return now_s + request.work_s > request.deadline_s


def policy() -> SchedulingPolicy:
    """Least slack first."""
    return SchedulingPolicy((rank,), enforces_deadlines=True)
