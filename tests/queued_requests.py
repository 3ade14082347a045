"""Queued requests by their number, and the order in which a policy dispatches them."""

from msgspec.structs import replace

from sage_gateway.scheduling import POLICIES, QueuedRequest
from sage_gateway.scheduling.class_queues import PolicyQueue


def order(name: str, *requests: QueuedRequest, now_s: float = 0.0) -> list[int]:
    """The numbers of ``requests`` in the order of dispatch when all of them are queued."""
    queue = PolicyQueue(POLICIES[name]())
    for request in requests:
        queue.push(request)
    return [queue.pop(now_s).number for _ in requests]


def request(number: int, arrived_s: float | None = None, **more: object) -> QueuedRequest:
    arrived = float(number) if arrived_s is None else arrived_s
    return replace(QueuedRequest(number, arrived), **more)  # type: ignore[arg-type]
