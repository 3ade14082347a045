"""Scheduling: the order in which queued requests get a replica when a model has no room.

``queue`` is a model's request queue, ``class_queues`` its four internal queues, ``queued_request``
what a request says of itself. ``policy`` is the interface of the policies, one file each; they are
listed in ``pool_spec.Scheduling``. ``preemption`` cancels background requests for others,
``shared_device`` divides a device between models, ``concurrency_limit`` and ``service_rate``
measure. A further policy is a file with ``policy()`` and its name in ``pool_spec.Scheduling``;
benchmark B9 measures every policy.
"""

from sage_gateway.scheduling import concurrency_limit
from sage_gateway.scheduling.concurrency_limit import ConcurrencyLimit
from sage_gateway.scheduling.preemption import run_preemptible
from sage_gateway.scheduling.queue import POLICIES, Queue, QueueClock, QueueLimits
from sage_gateway.scheduling.queued_request import (
    ANSWER_TOKENS,
    DEFAULT_HINTS,
    QueuedRequest,
    RequestHints,
    expected_tokens,
)
from sage_gateway.scheduling.shared_device import DeviceUsage, SharedDevice

__all__ = [
    "ANSWER_TOKENS",
    "DEFAULT_HINTS",
    "POLICIES",
    "ConcurrencyLimit",
    "DeviceUsage",
    "Queue",
    "QueueClock",
    "QueueLimits",
    "QueuedRequest",
    "RequestHints",
    "SharedDevice",
    "concurrency_limit",
    "expected_tokens",
    "run_preemptible",
]
