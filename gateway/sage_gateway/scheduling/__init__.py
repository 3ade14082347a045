"""Who goes next when a model has no room.

Decisions are pure; :class:`Queue` is the one owner of who waits for a model. One more policy: a
file here with ``policy()`` in it, and its name in ``pool_spec.Scheduling``.
"""

from sage_gateway.scheduling import concurrency_limit
from sage_gateway.scheduling.concurrency_limit import Limit
from sage_gateway.scheduling.preemption import giving_way
from sage_gateway.scheduling.queue import POLICIES, Bounds, Clock, Queue
from sage_gateway.scheduling.queued_request import (
    ANSWER_TOKENS,
    PLAIN,
    Ticket,
    Wishes,
    expected_tokens,
)
from sage_gateway.scheduling.shared_device import Device, Use

__all__ = [
    "ANSWER_TOKENS",
    "PLAIN",
    "POLICIES",
    "Bounds",
    "Clock",
    "Device",
    "Limit",
    "Queue",
    "Ticket",
    "Use",
    "Wishes",
    "concurrency_limit",
    "expected_tokens",
    "giving_way",
]
