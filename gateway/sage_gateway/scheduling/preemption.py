"""Preemption: background requests at the replicas are cancelled for others, and queued again.

A :class:`PreemptibleSection` works as ``asyncio.timeout`` does: its block is cancelled from
outside, and that cancellation is not an error. A request in such a section has sent no byte to its
caller yet, so only the work of the engine is lost.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

#: How often one request is preempted; after that it runs to its end, so that it does not starve.
PREEMPTIONS_MAX = 3

T = TypeVar("T")


async def run_preemptible(
    requests: "PreemptibleRequests",
    work: Callable[[], Awaitable[T]],
    requeue: Callable[[], Awaitable[None]],
) -> T:
    """The result of ``work``, started again after each preemption once ``requeue`` returned.

    After ``PREEMPTIONS_MAX`` preemptions a request is non-preemptible. Only one such request runs
    per model at a time: otherwise they would soon fill all replicas, and a queued foreground
    request would find no request to preempt.
    """
    for count in range(1, PREEMPTIONS_MAX + 1):
        with requests.section():
            return await work()
        if count < PREEMPTIONS_MAX:
            await requeue()
    async with requests.non_preemptible:
        await requeue()
        return await work()


class PreemptibleRequests:
    """The running background requests of one model that can be preempted.

    ``preempted`` counts the preemptions so far.
    """

    def __init__(self) -> None:
        self.preempted = 0
        self.non_preemptible = asyncio.Lock()
        self._running: dict[PreemptibleSection, None] = {}
        self._cancelling = 0

    def section(self) -> "PreemptibleSection":
        """A context manager for the task whose request is at a replica inside the block."""
        return PreemptibleSection(self)

    @property
    def running(self) -> bool:
        """Whether there is a request that can be preempted."""
        return bool(self._running)

    def preempt_until(self, count: int) -> None:
        """Preempt until ``count`` requests are being cancelled, or all of them are."""
        while self._cancelling < count and self._running:
            self.preempt_one()

    def preempt_one(self) -> None:
        """Preempt the youngest request, which loses the least work; there is at least one."""
        section, _ = self._running.popitem()
        self._cancelling += 1
        self.preempted += 1
        section.preempt()

    def add(self, section: "PreemptibleSection") -> None:
        """Make a section preemptible."""
        self._running[section] = None

    def remove(self, section: "PreemptibleSection") -> None:
        """Forget a section that has ended."""
        if section.preempted:
            self._cancelling -= 1
        else:
            del self._running[section]


class PreemptibleSection:
    """The block of one request; after a preemption it ends normally, with ``preempted`` set."""

    __slots__ = ("_cancelling", "_requests", "_task", "preempted")

    def __init__(self, requests: PreemptibleRequests) -> None:
        self.preempted = False
        self._requests = requests
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def __enter__(self) -> "PreemptibleSection":
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._requests.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._requests.remove(self)
        if not self.preempted:
            return False
        assert self._task is not None
        no_other_cancellation = self._task.uncancel() <= self._cancelling
        return no_other_cancellation and kind is asyncio.CancelledError

    def preempt(self) -> None:
        """Cancel the block, from another task."""
        assert self._task is not None
        self.preempted = True
        self._task.cancel()
