"""Which replica gets a request: a pure choice over what is known now."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sage_gateway.replicas import State


@dataclass(frozen=True, slots=True)
class Candidate:
    """A replica as routing sees it."""

    index: int
    state: State
    missed: int
    in_flight: int


def least_in_flight(
    candidates: Sequence[Candidate], *, tried: Collection[int] = (), concurrency: int
) -> int | None:
    """The index of the READY replica with the fewest requests, None when none has room.

    One that missed a health check, or was tried for this request already, is the last choice
    rather than no choice: a kept-alive connection may have been closed under the first try.
    """
    open_ = [c for c in candidates if c.state is State.READY and c.in_flight < concurrency]
    if not open_:
        return None
    best = min(open_, key=lambda c: (c.index in tried, c.missed > 0, c.in_flight, c.index))
    return best.index
