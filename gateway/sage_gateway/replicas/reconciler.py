"""What to do so that a model has the replicas wanted: states in, places to start and drain out.

Pure, and asked again after every change: what it said and was done, it does not say again.

A replica that is leaving counts for nothing among those wanted, but takes requests until so many
are ready without it as are wanted: its replacement is there before it goes. **Nobody who waits is
left alone**: the last ready one stays until the queue is empty, even where none is wanted.
"""

from collections.abc import Collection, Sequence
from itertools import islice
from typing import NamedTuple

from sage_gateway.replicas.lifecycle import LIVE, State

#: Who goes first where too many are there: what serves least.
_ORDER = {State.FAILED: 0, State.STARTING: 1, State.READY: 2}


class Seat(NamedTuple):
    """A replica as this module sees it."""

    place: int
    state: State
    leaving: bool = False


class Step(NamedTuple):
    """Free places where a replica is to be started, and places whose replica is to be drained."""

    start: tuple[int, ...] = ()
    drain: tuple[int, ...] = ()


def step(seats: Sequence[Seat], wanted: int, *, waiting: bool) -> Step:
    """What is missing, and who is too many; ``waiting``: requests wait for the model."""
    live = [seat for seat in seats if seat.state in LIVE]
    kept = [seat for seat in live if not seat.leaving]
    surplus = sorted(kept, key=_rank)[: max(0, len(kept) - wanted)]
    gone = surplus + _replaced([seat for seat in live if seat not in surplus], wanted)
    ready = [seat for seat in live if seat.state is State.READY]
    if waiting and ready and all(seat in gone for seat in ready):
        gone.remove(ready[0])
    start = _free({seat.place for seat in seats}, max(0, wanted - len(kept)))
    return Step(start, tuple(seat.place for seat in gone))


def _rank(seat: Seat) -> tuple[int, int]:
    return _ORDER[seat.state], -seat.place


def _replaced(live: Sequence[Seat], wanted: int) -> list[Seat]:
    """Those leaving that are not missed: not ready, or more are ready than are wanted."""
    spare = max(0, sum(seat.state is State.READY for seat in live) - wanted)
    leaving = [seat for seat in live if seat.leaving]
    idle = [seat for seat in leaving if seat.state is not State.READY]
    return idle + [seat for seat in leaving if seat.state is State.READY][:spare]


def _free(taken: Collection[int], count: int) -> tuple[int, ...]:
    """The lowest places that are not taken."""
    found = (place for place in range(len(taken) + count) if place not in taken)
    return tuple(islice(found, count))
