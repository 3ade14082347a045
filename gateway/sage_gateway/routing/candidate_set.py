"""A model's replicas as routing sees them, kept rather than made anew for every decision.

A decision needs to know whether there is room and among which replicas to choose. Made anew, that
takes a millisecond with a thousand replicas, several times a request. Here a replica that changed
is looked at once, before the next decision; the rest stands as it was.

Only a circuit that is not closed changes with time alone, so such replicas are looked at always.
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Protocol

from sage_gateway.replicas.circuit_breaker import Breaker, Circuit
from sage_gateway.replicas.lifecycle import State
from sage_gateway.routing.policy import PLACE, Candidate, eligible

_NOBODY = Candidate(0, State.STOPPED, 0)


class Seen(Protocol):
    """A replica, as far as it is looked at; it adds itself to ``changed`` when it changes."""

    breaker: Breaker
    changed: "set[Seen]"

    def room(self) -> int:
        """How many more requests it takes now."""

    def candidate(self, now_s: float) -> Candidate:
        """As routing sees it."""


class Tier:
    """READY replicas of the same trust. ``open``: those with room, in the order of places."""

    __slots__ = ("count", "open", "room")

    def __init__(self) -> None:
        self.count = 0
        self.room = 0
        self.open: list[Candidate] = []

    def add(self, candidate: Candidate, room: int) -> None:
        """It is one of these."""
        self.count += 1
        self.room += room
        if candidate.room:
            self.open.insert(self._at(candidate), candidate)

    def remove(self, candidate: Candidate, room: int) -> None:
        """It is none any more; said as it was when added."""
        self.count -= 1
        self.room -= room
        if candidate.room:
            del self.open[self._at(candidate)]

    def _at(self, candidate: Candidate) -> int:
        return bisect_left(self.open, candidate.place, key=PLACE)


class Roster:
    """The replicas in ``members``, which may grow and shrink, in the order of their places.

    Answers as :func:`sage_gateway.routing.eligible` would of all of them at ``now_s``.
    """

    def __init__(self, members: Sequence[Seen]) -> None:
        self._members = members
        self._known: list[Seen] = []
        self._index: dict[Seen, int] = {}
        self._candidates: list[Candidate] = []
        self._rooms: list[int] = []
        self._changed: set[Seen] = set()
        self._unsettled: set[Seen] = set()
        self._trusted = Tier()
        self._doubted = Tier()

    def room(self, now_s: float) -> int:
        """For how many requests those that would be chosen have room."""
        return self._first(now_s).room

    def ready(self, now_s: float) -> int:
        """How many replicas take requests."""
        self._refresh(now_s)
        return self._trusted.count + self._doubted.count

    def open(self, tried: Collection[int], now_s: float) -> Sequence[Candidate]:
        """Those to choose from, in the order of their places; to be read before the next call."""
        first = self._first(now_s)
        return eligible(self._candidates, tried=tried) if tried else first.open

    def _first(self, now_s: float) -> Tier:
        self._refresh(now_s)
        return self._trusted if self._trusted.count else self._doubted

    def _refresh(self, now_s: float) -> None:
        if self._known != self._members:
            self._begin(now_s)
        elif self._changed or self._unsettled:
            look = self._changed | self._unsettled
            self._changed.clear()
            for member in look:
                self._look(member, now_s)

    def _look(self, member: Seen, now_s: float) -> None:
        at = self._index[member]
        before, room = self._candidates[at], self._rooms[at]
        if before.state is State.READY:
            self._tier(before).remove(before, room)
        self._put(member, at, now_s)

    def _put(self, member: Seen, at: int, now_s: float) -> None:
        candidate = self._candidates[at] = member.candidate(now_s)
        room = self._rooms[at] = member.room()
        if candidate.state is State.READY:
            self._tier(candidate).add(candidate, room)
        if member.breaker.circuit is Circuit.CLOSED:
            self._unsettled.discard(member)
        else:
            self._unsettled.add(member)

    def _tier(self, candidate: Candidate) -> Tier:
        return self._doubted if candidate.doubted else self._trusted

    def _begin(self, now_s: float) -> None:
        for member in self._known:
            member.changed = set()
        self._known = list(self._members)
        self._index = {member: at for at, member in enumerate(self._known)}
        self._changed, self._unsettled = set(), set()
        self._trusted, self._doubted = Tier(), Tier()
        self._candidates = [_NOBODY] * len(self._known)
        self._rooms = [0] * len(self._known)
        for at, member in enumerate(self._known):
            member.changed = self._changed
            self._put(member, at, now_s)
