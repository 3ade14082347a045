"""The more urgent class first, without starvation: a class is a head start of ``AGING_S``.

A ``low`` request precedes every ``interactive`` request that arrived 15 s after it or later.
"""

from sage_gateway.scheduling.policy import SchedulingPolicy
from sage_gateway.scheduling.queued_request import QueuedRequest

AGING_S = 5.0


def rank(request: QueuedRequest) -> float:
    """By arrival, later by ``AGING_S`` for each class above it."""
    return request.arrived_s + AGING_S * request.priority


def policy() -> SchedulingPolicy:
    """Classes with aging. The last class, background, has its own queue: :mod:`class_queues`."""
    return SchedulingPolicy((rank,))
