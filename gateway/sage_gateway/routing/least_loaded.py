"""The replica with the fewest requests in flight; of equal ones the first."""

from collections.abc import Sequence

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.routing.policy import LOAD, Candidate, RoutingHints, RoutingPolicy


def choose(candidates: Sequence[Candidate], _: RoutingHints, __: None) -> int:
    """The index of the least loaded replica."""
    return least(candidates).slot_index


def least(candidates: Sequence[Candidate]) -> Candidate:
    """The least loaded candidate."""
    return min(candidates, key=LOAD)


def start(_: ModelSpec) -> None:
    """This policy has no state."""


POLICY: RoutingPolicy[None] = RoutingPolicy(choose=choose, start=start)
