"""The candidate set of a model: its replicas as routing sees them, updated incrementally.

A decision needs to know whether there is room, and the replicas to choose from. Computed from
scratch, that takes a millisecond with a thousand replicas, several times per request. Here only the
replicas that changed since the last decision are evaluated.

Only a circuit that is not closed changes with time alone, so such replicas are always evaluated.
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Protocol

from sage_gateway.replicas.circuit_breaker import Breaker, Circuit
from sage_gateway.replicas.lifecycle import ReplicaState
from sage_gateway.routing.policy import SLOT_INDEX, Candidate, eligible

_UNKNOWN = Candidate(0, ReplicaState.STOPPED, 0)


class RoutedReplica(Protocol):
    """A replica as the candidate set sees it.

    It adds itself to :attr:`CandidateSet.changes` whenever one of these values changes.
    """

    breaker: Breaker

    def room(self) -> int:
        """How many more requests it takes now."""

    def candidate(self, now_s: float) -> Candidate:
        """The replica as a routing policy sees it."""


class PriorityTier:
    """READY replicas of one priority. ``available``: those with room, in the order of index."""

    __slots__ = ("available", "count", "room")

    def __init__(self) -> None:
        self.count = 0
        self.room = 0
        self.available: list[Candidate] = []

    def add(self, candidate: Candidate, room: int) -> None:
        """Add a replica with its room."""
        self.count += 1
        self.room += room
        if candidate.has_room:
            self.available.insert(self._position(candidate), candidate)

    def remove(self, candidate: Candidate, room: int) -> None:
        """Remove a replica; the arguments are those of :meth:`add`."""
        self.count -= 1
        self.room -= room
        if candidate.has_room:
            del self.available[self._position(candidate)]

    def _position(self, candidate: Candidate) -> int:
        return bisect_left(self.available, candidate.slot_index, key=SLOT_INDEX)


class CandidateSet:
    """The replicas of ``replicas`` in the order of index; equal to ``eligible`` of all of them.

    A replica that changed is in ``changes``. After adding or removing replicas call :meth:`reset`.
    """

    def __init__(self, replicas: Sequence[RoutedReplica]) -> None:
        self.changes: set[RoutedReplica] = set()
        self._replicas = replicas
        self._complete = False
        self._positions: dict[RoutedReplica, int] = {}
        self._candidates: list[Candidate] = []
        self._rooms: list[int] = []
        self._unsettled: set[RoutedReplica] = set()
        self._healthy = PriorityTier()
        self._degraded = PriorityTier()

    def reset(self) -> None:
        """Evaluate all replicas before the next decision."""
        self._complete = False

    def room(self, now_s: float) -> int:
        """For how many requests the replicas of the first tier have room."""
        return self._first_tier(now_s).room

    def ready(self, now_s: float) -> int:
        """The number of replicas that take requests."""
        self._refresh(now_s)
        return self._healthy.count + self._degraded.count

    def available(self, tried: Collection[int], now_s: float) -> Sequence[Candidate]:
        """The replicas to choose from, in the order of index; valid until the next call."""
        first = self._first_tier(now_s)
        return eligible(self._candidates, tried=tried) if tried else first.available

    def _first_tier(self, now_s: float) -> PriorityTier:
        self._refresh(now_s)
        return self._healthy if self._healthy.count else self._degraded

    def _refresh(self, now_s: float) -> None:
        if not self._complete:
            self._rebuild(now_s)
        elif self.changes or self._unsettled:
            changed = self.changes | self._unsettled
            self.changes.clear()
            for replica in changed:
                position = self._positions.get(replica)
                if position is not None:  # None: it was removed, and a request there ended
                    self._update(replica, position, now_s)

    def _update(self, replica: RoutedReplica, position: int, now_s: float) -> None:
        before, room = self._candidates[position], self._rooms[position]
        if before.state is ReplicaState.READY:
            self._tier(before).remove(before, room)
        self._insert(replica, position, now_s)

    def _insert(self, replica: RoutedReplica, position: int, now_s: float) -> None:
        candidate = self._candidates[position] = replica.candidate(now_s)
        room = self._rooms[position] = replica.room()
        if candidate.state is ReplicaState.READY:
            self._tier(candidate).add(candidate, room)
        if replica.breaker.circuit is Circuit.CLOSED:
            self._unsettled.discard(replica)
        else:
            self._unsettled.add(replica)

    def _tier(self, candidate: Candidate) -> PriorityTier:
        return self._degraded if candidate.degraded else self._healthy

    def _rebuild(self, now_s: float) -> None:
        self.changes.clear()
        self._unsettled.clear()
        self._healthy, self._degraded = PriorityTier(), PriorityTier()
        self._positions = {replica: at for at, replica in enumerate(self._replicas)}
        self._candidates = [_UNKNOWN] * len(self._replicas)
        self._rooms = [0] * len(self._replicas)
        for position, replica in enumerate(self._replicas):
            self._insert(replica, position, now_s)
        self._complete = True
