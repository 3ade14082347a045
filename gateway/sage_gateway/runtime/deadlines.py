"""Deadlines that rarely expire: most are removed before they are due.

Setting and cancelling a timer of the event loop takes 2 us, as long as recording an answer. Here a
deadline is an entry in a dict, and one timer checks all of them.
"""

import asyncio
from collections.abc import Callable


class Deadlines:
    """Runs the callback of a deadline when it is due, or up to ``every_s`` later."""

    __slots__ = ("_due", "_every_s", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, every_s: float) -> None:
        self._loop = loop
        self._every_s = every_s
        self._due: dict[object, tuple[float, Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, owner: object, after_s: float, callback: Callable[[], None]) -> None:
        """Set the deadline of ``owner``, in place of an earlier one."""
        self._due[owner] = (self._loop.time() + after_s, callback)
        if self._timer is None:
            self._timer = self._loop.call_later(self._every_s, self._check)

    def drop(self, owner: object) -> None:
        """Remove the deadline of ``owner``, if it has one."""
        self._due.pop(owner, None)

    def _check(self) -> None:
        now_s = self._loop.time()
        for owner, (due_s, callback) in list(self._due.items()):
            if due_s <= now_s and self._due.pop(owner, None) is not None:
                callback()
        again = bool(self._due)
        self._timer = self._loop.call_later(self._every_s, self._check) if again else None
