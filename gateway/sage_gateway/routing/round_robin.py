"""One replica after the other, whatever their load. The state is the index chosen last."""

from bisect import bisect_right
from collections.abc import Sequence

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.routing.policy import PLACE, Candidate, Hints, Policy


def choose(candidates: Sequence[Candidate], _: Hints, last: int) -> int:
    """The next index after ``last``, or the first."""
    after = bisect_right(candidates, last, key=PLACE)
    return candidates[after % len(candidates)].place


def start(_: ModelSpec) -> int:
    """Before the first."""
    return -1


def learn(_: int, __: Hints, index: int) -> int:
    """The index is now the last."""
    return index


POLICY: Policy[int] = Policy(choose=choose, start=start, learn=learn)
