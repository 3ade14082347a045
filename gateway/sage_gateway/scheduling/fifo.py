"""First in, first out."""

from sage_gateway.scheduling.policy import SchedulingPolicy
from sage_gateway.scheduling.queued_request import QueuedRequest


def rank(request: QueuedRequest) -> float:
    """By arrival."""
    return request.arrived_s


def policy() -> SchedulingPolicy:
    """First in, first out."""
    return SchedulingPolicy((rank,))
