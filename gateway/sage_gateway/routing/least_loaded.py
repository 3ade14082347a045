"""The replica with the fewest requests in flight; of several the first."""

from collections.abc import Sequence

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.routing.policy import LOAD, Candidate, Hints, Policy


def choose(candidates: Sequence[Candidate], _: Hints, __: None) -> int:
    """The index of the least busy."""
    return least(candidates).place


def least(candidates: Sequence[Candidate]) -> Candidate:
    """The least busy of them."""
    return min(candidates, key=LOAD)


def start(_: ModelSpec) -> None:
    """Nothing is remembered."""


POLICY: Policy[None] = Policy(choose=choose, start=start)
