"""Background requests at the replicas give way to others who wait: they are cancelled, and resume.

A :class:`Turn` works as ``asyncio.timeout`` does: its block is cancelled from outside, and what
comes out of that is no error. Nothing is lost: of a request in a turn no byte was answered yet.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

#: How often one request gives way; then it runs to its end, so that it does not starve.
PREEMPTIONS_MAX = 3

T = TypeVar("T")


async def giving_way(
    turns: "Turns", work: Callable[[], Awaitable[T]], resume: Callable[[], Awaitable[None]]
) -> T:
    """What ``work`` returns, begun anew after it gave way, once ``resume`` has waited for room.

    Of those who gave way too often one a model runs at a time: else they would soon have all the
    room, and who waits would find nobody left to make way.
    """
    for count in range(1, PREEMPTIONS_MAX + 1):
        with turns.begin():
            return await work()
        if count < PREEMPTIONS_MAX:
            await resume()
    async with turns.undisturbed:
        await resume()
        return await work()


class Turns:
    """The background requests of one model that may give way, and how many did."""

    def __init__(self) -> None:
        self.preempted = 0
        self.undisturbed = asyncio.Lock()
        self._running: dict[Turn, None] = {}
        self._giving_way = 0

    def begin(self) -> "Turn":
        """A turn, to be entered by the task whose request is at a replica within it."""
        return Turn(self)

    @property
    def running(self) -> bool:
        """Whether there is one that may give way."""
        return bool(self._running)

    def give_way(self, wanted: int) -> None:
        """So many give way, those that do already among them."""
        while self._giving_way < wanted and self._running:
            self.make_way()

    def make_way(self) -> None:
        """One more gives way: the youngest, who loses least; there is one."""
        turn, _ = self._running.popitem()
        self._giving_way += 1
        self.preempted += 1
        turn.preempt()

    def entered(self, turn: "Turn") -> None:
        """It may give way from now on."""
        self._running[turn] = None

    def left(self, turn: "Turn") -> None:
        """It is over."""
        if turn.preempted:
            self._giving_way -= 1
        else:
            del self._running[turn]


class Turn:
    """One request's block; it just ends if it was preempted, with ``preempted`` set."""

    __slots__ = ("_cancelling", "_task", "_turns", "preempted")

    def __init__(self, turns: Turns) -> None:
        self.preempted = False
        self._turns = turns
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def __enter__(self) -> "Turn":
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        self._turns.entered(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._turns.left(self)
        if not self.preempted:
            return False
        assert self._task is not None
        nobody_else = self._task.uncancel() <= self._cancelling
        return nobody_else and kind is asyncio.CancelledError

    def preempt(self) -> None:
        """Cancel the block, from another task."""
        assert self._task is not None
        self.preempted = True
        self._task.cancel()
