"""Models that compute on one device, such as chat and embeddings on one GPU, scheduled together.

A burst of embeddings slows every token of a chat model beside it, and no model's own limits know
of that. So the models that name a ``device`` share its ``concurrency``:

* Below its share, by weights, a model has room as long as the device has.
* Beyond that it takes what the others leave. Left are a place for each that has none, so that a
  short embedding does not wait for the end of a long generation, and for those of its users who
  wait as many as its share allows.
* Background work of all models stands behind the users of all, and gives way to them.

Requests are counted, not what they cost the device: an engine tells nobody that.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Use(NamedTuple):
    """What a model has of a device: its weight, how many requests are there, how many wait."""

    share: float
    busy: int
    waiting: int


class Sharer(Protocol):
    """A model, as far as its device is concerned."""

    def use(self) -> Use:
        """As it is now; who waits is not background."""

    def pump(self) -> None:
        """Let go as many as there is room for."""

    def give_way(self, wanted: int) -> None:
        """So many of its background requests give way, if there are."""


def room(concurrency: int, mine: Use, others: Sequence[Use]) -> bool:
    """Whether a model may have one more request on a device of this concurrency.

    >>> room(4, Use(1, 2, 0), [Use(1, 0, 0)])
    True
    >>> room(4, Use(1, 3, 0), [Use(1, 0, 0)])
    False
    """
    free = concurrency - mine.busy - sum(other.busy for other in others)
    if free <= 0:
        return False
    part = concurrency / (mine.share + sum(other.share for other in others))
    if mine.busy < max(1, int(part * mine.share)):
        return True
    return free > sum(_left(other, max(1, int(part * other.share))) for other in others)


def _left(other: Use, most: int) -> int:
    """How many places a model that goes beyond its share leaves to one that may have ``most``."""
    wanted = max(other.waiting, 0 if other.busy else 1)
    return max(0, min(wanted, most - other.busy))


def _won(concurrency: int, mine: Use, other: Use, rest: Sequence[Use], wanted: int) -> int:
    """How many places a model would win if another had so many fewer; those left to it are not."""
    for won in range(min(wanted, other.busy)):
        less = other._replace(busy=other.busy - won - 1)
        if not room(concurrency, mine._replace(busy=mine.busy + won), [less, *rest]):
            return won
    return min(wanted, other.busy)


class Device:
    """The owner of who shares a device."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self._sharers: list[Sharer] = []

    def join(self, sharer: Sharer) -> None:
        """It computes here from now on."""
        self._sharers.append(sharer)

    def leave(self, sharer: Sharer) -> None:
        """It is no longer asked for; what it still has here is not counted."""
        self._sharers.remove(sharer)

    def room(self, sharer: Sharer) -> bool:
        """Whether it may have one more request here."""
        return room(self.concurrency, sharer.use(), self._others(sharer))

    def calm(self, sharer: Sharer) -> bool:
        """Whether no user of the others waits."""
        return not any(other.waiting for other in self._others(sharer))

    def pump(self) -> None:
        """Let go as many as there is room for, of who has least of its share first."""
        for sharer in sorted(self._sharers, key=_had):
            sharer.pump()

    def make_way(self, sharer: Sharer, wanted: int) -> None:
        """Background of the others gives way to so many of its users, as far as they gain by it."""
        mine = sharer.use()
        for other in self._sharers:
            if other is sharer:
                continue
            rest = [one.use() for one in self._sharers if one not in (sharer, other)]
            places = _won(self.concurrency, mine, other.use(), rest, wanted)
            other.give_way(places)
            mine, wanted = mine._replace(busy=mine.busy + places), wanted - places

    def _others(self, sharer: Sharer) -> list[Use]:
        return [one.use() for one in self._sharers if one is not sharer]


def _had(sharer: Sharer) -> float:
    share, busy, _ = sharer.use()
    return busy / share
