"""The interface of a scheduling policy: the order in which queued requests are dispatched."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sage_gateway.scheduling.queued_request import QueuedRequest

Rank = Callable[[QueuedRequest], float]
HeadChooser = Callable[[Sequence[QueuedRequest], int, float], int]


def first_head(_: Sequence[QueuedRequest], __: int, ___: float) -> int:
    """For a policy with one rank."""
    return 0


def ignore_dispatch(_: QueuedRequest) -> None:
    """For a policy without a memory of dispatched requests."""


def ignore_charge(_: QueuedRequest, __: int) -> None:
    """For a policy that does not count tokens."""


@dataclass(frozen=True, slots=True)
class SchedulingPolicy:
    """One way to order queued requests.

    ``ranks``: one order each; the lowest rank is its head, and of equal ranks the earlier request.
    A rank is computed once, on arrival, and must not read the clock: **waiting must change all
    ranks alike**, so that a heap stays in order and is never sorted again. Aging is therefore a
    head start of an urgent request over those that arrived before it, not a bonus that grows.
    ``choose_head``: the index of the order whose head is next, from the heads, the number of
    requests dispatched before, and the time.
    ``enforces_deadlines``: whether a request that cannot meet its deadline any more is refused.
    ``on_dispatch(request)``: called when a request leaves its order as the next one.
    ``charge(request, tokens)``: adds ``tokens`` to the expected cost, ``request.tokens``, that its
    rank has counted. It is called

    * with ``-request.tokens`` when the request will not be served: the caller disconnected, the
      queue's timeout or the deadline has passed, before ``on_dispatch`` or right after it;
    * with ``-request.tokens`` after ``on_dispatch`` when the request is predicted to miss its
      deadline and is deferred, and with ``request.tokens`` when it is dispatched after all;
    * with the tokens that the engine counted less ``request.tokens``, after the answer: negative
      for one shorter than expected. Without it the expected cost remains.

    One policy object per model ranks its foreground and its background requests. It lives as long
    as the gateway and sees every tenant, so its state must be bounded (:mod:`fair`).
    """

    ranks: tuple[Rank, ...]
    choose_head: HeadChooser = first_head
    enforces_deadlines: bool = False
    on_dispatch: Callable[[QueuedRequest], None] = ignore_dispatch
    charge: Callable[[QueuedRequest, int], None] = ignore_charge
