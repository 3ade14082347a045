"""What a routing policy sees and says: frozen values in, the index of a replica out.

A policy chooses among what :func:`eligible` left, so none can choose a replica that is not READY
or is full, or forget the order of trust. Candidates come in the order of their places.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.replicas.lifecycle import State
from sage_gateway.requests.request import Request

S = TypeVar("S")


class Candidate(NamedTuple):
    """A replica as routing sees it; ``place`` is its number in the model.

    ``doubted``: it lost a request or missed a check, or its circuit is not closed. ``room``: it
    takes one more request.

    A tuple, because every decision makes one a replica: a frozen dataclass takes three times as
    long to make.
    """

    place: int
    state: State
    in_flight: int
    doubted: bool = False
    room: bool = True


#: In C, because a thousand replicas are a thousand calls a decision.
PLACE: Callable[[Candidate], int] = itemgetter(Candidate._fields.index("place"))
LOAD: Callable[[Candidate], int] = itemgetter(Candidate._fields.index("in_flight"))


class Hints(NamedTuple):
    """Where a request belongs: ``key`` by name, ``chain`` by the blocks of its prompt."""

    key: bytes = b""
    chain: tuple[bytes, ...] = ()


NO_HINTS = Hints()


def no_hints(_: Request) -> Hints:
    """For a policy that takes every request alike."""
    return NO_HINTS


def unchanged(state: S, _: Hints, __: int) -> S:
    """For a policy that remembers nothing of a choice."""
    return state


@dataclass(frozen=True, slots=True)
class Policy(Generic[S]):
    """One way to choose.

    ``choose`` is pure: candidates (never none), hints and the state give the index. ``learn`` is
    the state after that choice, ``start`` the first one. ``read`` takes the hints from a request.
    """

    choose: Callable[[Sequence[Candidate], Hints, S], int]
    start: Callable[[ModelSpec], S]
    learn: Callable[[S, Hints, int], S] = unchanged
    read: Callable[[Request], Hints] = no_hints


def eligible(candidates: Sequence[Candidate], *, tried: Collection[int] = ()) -> list[Candidate]:
    """Those to choose from, all of the same trust: READY, with room for one more request.

    One that is doubted, or was tried for this request already, is the last choice rather than no
    choice. A kept-alive connection may have been closed under the first try; and were an open
    circuit a refusal, requests that make every engine fail would close a model to everybody.

    **Trust goes before room**: while any is trusted, a doubted one's room is none. A dead one,
    which seems to have room again and again, would draw all who wait before it is found dead.
    """
    ready = [c for c in candidates if c.state is State.READY]
    if tried and (fresh := _open([c for c in ready if c.place not in tried])):
        return fresh
    return _open(ready)


def _open(ready: list[Candidate]) -> list[Candidate]:
    trusted = [c for c in ready if not c.doubted] or ready
    return [c for c in trusted if c.room]
