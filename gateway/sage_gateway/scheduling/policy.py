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
    A rank is computed once, on arrival: **waiting must change all ranks alike**, so that a heap
    stays in order and is never sorted again. Aging is therefore a head start of an urgent request
    over those that arrived before it, not a bonus that grows.
    ``choose_head``: the index of the order whose head is next, from the heads, the number of
    requests dispatched before, and the time.
    ``enforces_deadlines``: whether a request that cannot meet its deadline any more is refused.
    ``on_dispatch``: called when a request is dispatched. ``charge``: corrects its cost by a number
    of tokens, which is negative for a request that left the queue.
    """

    ranks: tuple[Rank, ...]
    choose_head: HeadChooser = first_head
    enforces_deadlines: bool = False
    on_dispatch: Callable[[QueuedRequest], None] = ignore_dispatch
    charge: Callable[[QueuedRequest, int], None] = ignore_charge
