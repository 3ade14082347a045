"""Deadlines that hardly ever come: most are dropped before they are due.

A timer of the event loop takes 2 us to set and to cancel, as long as a request's ledger entry; here
it is a place in a dict, and one timer looks at all of them now and then.
"""

import asyncio
from collections.abc import Callable


class Deadlines:
    """``then`` is called at ``due_s`` of the loop's clock, or up to ``every_s`` later."""

    __slots__ = ("_due", "_every_s", "_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, every_s: float) -> None:
        self._loop = loop
        self._every_s = every_s
        self._due: dict[object, tuple[float, Callable[[], None]]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, whose: object, after_s: float, then: Callable[[], None]) -> None:
        """Its deadline; an earlier one of the same is forgotten."""
        self._due[whose] = (self._loop.time() + after_s, then)
        if self._timer is None:
            self._timer = self._loop.call_later(self._every_s, self._look)

    def drop(self, whose: object) -> None:
        """It has none any more."""
        self._due.pop(whose, None)

    def _look(self) -> None:
        now_s = self._loop.time()
        for whose, (due_s, then) in list(self._due.items()):
            if due_s <= now_s and self._due.pop(whose, None) is not None:
                then()
        again = bool(self._due)
        self._timer = self._loop.call_later(self._every_s, self._look) if again else None
