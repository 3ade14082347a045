"""One replica after the other, whatever their load. The state is the last chosen index."""

from bisect import bisect_right
from collections.abc import Sequence

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.routing.policy import SLOT_INDEX, Candidate, RoutingHints, RoutingPolicy


def choose(candidates: Sequence[Candidate], _: RoutingHints, last: int) -> int:
    """The next index after ``last``, or the first."""
    after = bisect_right(candidates, last, key=SLOT_INDEX)
    return candidates[after % len(candidates)].slot_index


def start(_: ModelSpec) -> int:
    """Before the first."""
    return -1


def learn(_: int, __: RoutingHints, index: int) -> int:
    """The index becomes the last one."""
    return index


POLICY: RoutingPolicy[int] = RoutingPolicy(choose=choose, start=start, learn=learn)
