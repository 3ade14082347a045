"""Who goes next when a model has no room.

Decisions are pure; :class:`Queue` is the one owner of who waits for a model. One more policy: a
file here with ``policy()`` in it, and its name in ``pool_spec.Scheduling``.
"""

from sage_gateway.scheduling import limit
from sage_gateway.scheduling.device import Device, Use
from sage_gateway.scheduling.limit import Limit
from sage_gateway.scheduling.preempt import giving_way
from sage_gateway.scheduling.queue import POLICIES, Bounds, Clock, Queue
from sage_gateway.scheduling.ticket import (
    ANSWER_TOKENS,
    PLAIN,
    Headers,
    Ticket,
    Wishes,
    expected_tokens,
    wished,
)

__all__ = [
    "ANSWER_TOKENS",
    "PLAIN",
    "POLICIES",
    "Bounds",
    "Clock",
    "Device",
    "Headers",
    "Limit",
    "Queue",
    "Ticket",
    "Use",
    "Wishes",
    "expected_tokens",
    "giving_way",
    "limit",
    "wished",
]
