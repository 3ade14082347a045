"""What a scheduling policy is: in which order those who wait are let go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sage_gateway.scheduling.queued_request import Ticket

Rank = Callable[[Ticket], float]
Turn = Callable[[Sequence[Ticket], int, float], int]


def only(_: Sequence[Ticket], __: int, ___: float) -> int:
    """For a policy of one order."""
    return 0


def unmoved(_: Ticket) -> None:
    """For a policy that remembers nothing of whom it let go."""


def uncharged(_: Ticket, __: int) -> None:
    """For a policy that keeps no account of tokens."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One way to order those who wait.

    ``ranks``: one order each, the lowest rank is its head, of two equal ones the earlier ticket. A
    rank is asked for once, when the ticket comes: **waiting must move all ranks alike**, so that a
    heap stays in order and nothing is ever sorted again. Aging is therefore a head start that an
    urgent ticket gets over those who came before it, not a bonus that grows.
    ``turn``: which order's head goes next, of their heads, how many went before, and the time.
    ``expires``: whether who can no more be answered by its deadline is refused.
    ``served``: the ticket is let go. ``charge``: it cost so many tokens more than expected; less
    than none where it left the queue.
    """

    ranks: tuple[Rank, ...]
    turn: Turn = only
    expires: bool = False
    served: Callable[[Ticket], None] = unmoved
    charge: Callable[[Ticket, int], None] = uncharged
