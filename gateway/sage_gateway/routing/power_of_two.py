"""The less busy of two drawn at random: near the best balance, and no herd.

Several gateways that each see only their own requests would all send the next one to the same
least busy replica. Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing
(2001). The state is the seed of splitmix64, so that a decision can be repeated.
"""

import secrets
from collections.abc import Sequence

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.routing.policy import Candidate, Hints, Policy

STEP = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def choose(candidates: Sequence[Candidate], _: Hints, seed: int) -> int:
    """The index of the less busy of the two drawn."""
    first, second = (candidates[at] for at in drawn(len(candidates), seed))
    return (first if first.in_flight <= second.in_flight else second).place


def drawn(count: int, seed: int) -> tuple[int, int]:
    """Two places below ``count``; different ones, where there are two."""
    if count == 1:
        return 0, 0
    number = _mixed(seed)
    first = number % count
    return first, (first + 1 + (number >> 32) % (count - 1)) % count


def start(_: ModelSpec) -> int:
    """Another seed in each gateway."""
    return secrets.randbits(64)


def learn(seed: int, _: Hints, __: int) -> int:
    """The next seed."""
    return (seed + STEP) & MASK


def _mixed(seed: int) -> int:
    mixed = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & MASK
    return mixed ^ (mixed >> 31)


POLICY: Policy[int] = Policy(choose=choose, start=start, learn=learn)
