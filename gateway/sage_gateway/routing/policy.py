"""The interface of a routing policy: frozen values in, the index of a replica out.

A policy chooses among the candidates that :func:`eligible` returns, so it cannot choose a replica
that is not READY or is full, or prefer a degraded one. Candidates are in the order of index.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Generic, NamedTuple, TypeVar

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.replicas.lifecycle import ReplicaState
from sage_gateway.requests.request import Request

S = TypeVar("S")


class Candidate(NamedTuple):
    """A replica as routing sees it; ``slot_index`` is its number in the model.

    ``degraded``: it lost a request or missed a check, or its circuit is not closed. ``has_room``:
    it takes one more request.

    A tuple, because every decision creates one per changed replica: a frozen dataclass takes three
    times as long to create.
    """

    slot_index: int
    state: ReplicaState
    in_flight: int
    degraded: bool = False
    has_room: bool = True


#: In C, because a thousand replicas are a thousand calls per decision.
SLOT_INDEX: Callable[[Candidate], int] = itemgetter(Candidate._fields.index("slot_index"))
LOAD: Callable[[Candidate], int] = itemgetter(Candidate._fields.index("in_flight"))


class RoutingHints(NamedTuple):
    """The affinity of a request: ``key`` by name, ``chain`` by the blocks of its prompt."""

    key: bytes = b""
    chain: tuple[bytes, ...] = ()


NO_HINTS = RoutingHints()


def no_hints(_: Request) -> RoutingHints:
    """For a policy that treats all requests alike."""
    return NO_HINTS


def keep_state(state: S, _: RoutingHints, __: int) -> S:
    """For a policy that does not remember its choices."""
    return state


@dataclass(frozen=True, slots=True)
class RoutingPolicy(Generic[S]):
    """One way to choose a replica.

    ``choose`` is pure: candidates (at least one), hints and the state give the index. ``learn`` is
    the state after that choice, ``start`` the initial one. ``read`` takes the hints from a
    request.
    """

    choose: Callable[[Sequence[Candidate], RoutingHints, S], int]
    start: Callable[[ModelSpec], S]
    learn: Callable[[S, RoutingHints, int], S] = keep_state
    read: Callable[[Request], RoutingHints] = no_hints


def eligible(candidates: Sequence[Candidate], *, tried: Collection[int] = ()) -> list[Candidate]:
    """The replicas to choose from, all of one tier: READY, with room for one more request.

    A replica that is degraded, or was tried for this request already, is the last choice rather
    than no choice. A kept-alive connection may have been closed under the first try; and if an open
    circuit were a refusal, requests that make every engine fail would close a model to all callers.

    **The tier precedes the room**: while any replica is healthy, the room of a degraded one does
    not count. A dead replica, which seems to have room again and again, would otherwise attract all
    queued requests before it is found dead.
    """
    ready = [c for c in candidates if c.state is ReplicaState.READY]
    if tried and (fresh := _with_room([c for c in ready if c.slot_index not in tried])):
        return fresh
    return _with_room(ready)


def _with_room(ready: list[Candidate]) -> list[Candidate]:
    tier = [c for c in ready if not c.degraded] or ready
    return [c for c in tier if c.has_room]
