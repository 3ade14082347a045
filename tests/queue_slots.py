"""The queue of a model in front of replicas that are a number of free slots."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from sage_gateway.scheduling import (
    DEFAULT_HINTS,
    POLICIES,
    Queue,
    QueueClock,
    QueueLimits,
    RequestHints,
)


class Replicas:
    """The replicas of one model, as a number of free slots."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.up = 1
        self.order: list[str] = []

    def beyond(self, taken: int) -> bool:
        return self.free > taken

    def ready(self) -> int:
        return self.up

    def queue(
        self,
        policy: str = "fifo",
        queue_max: int = 100,
        timeout_s: float = 30.0,
        **more: QueueClock,
    ) -> Queue:
        bounds = QueueLimits(queue_max, timeout_s)
        return Queue(
            "m", POLICIES[policy](), bounds, has_room=self.beyond, ready_replicas=self.ready, **more
        )

    async def ask(self, queue: Queue, name: str = "", hints: RequestHints = DEFAULT_HINTS) -> None:
        """One request: it is queued, dispatched, and uses its slot until ``answer``."""
        await queue.admit(hints, 10)
        self.free -= 1
        self.order.append(name)

    def answer(self, queue: Queue) -> None:
        """Answer one of the dispatched requests."""
        self.free += 1
        queue.dispatch()


def suspends(entering: Coroutine[Any, Any, Any]) -> bool:
    """Whether the coroutine suspends; it runs without the loop."""
    try:
        entering.send(None)
    except StopIteration:
        return False
    entering.close()
    return True


async def settle() -> None:
    """Wait until every task that can run has run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def waiting(queue: Queue, *asks: Coroutine[Any, Any, None]) -> list["asyncio.Task[None]"]:
    tasks = [asyncio.create_task(ask) for ask in asks]
    await settle()
    assert len(queue) == len(tasks)
    return tasks
