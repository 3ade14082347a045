"""The less loaded of two replicas drawn at random: near the best balance, without a herd.

Several gateways that each see only their own requests would all send the next request to the same
least loaded replica. Source: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing
(2001). The state is the seed of splitmix64, so that a decision can be repeated.
"""

import secrets
from collections.abc import Sequence

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.routing.policy import Candidate, RoutingHints, RoutingPolicy

STEP = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def choose(candidates: Sequence[Candidate], _: RoutingHints, seed: int) -> int:
    """The index of the less loaded of the two candidates."""
    first, second = (candidates[at] for at in draw_two(len(candidates), seed))
    return (first if first.in_flight <= second.in_flight else second).slot_index


def draw_two(count: int, seed: int) -> tuple[int, int]:
    """Two numbers below ``count``; different ones, unless ``count`` is 1."""
    if count == 1:
        return 0, 0
    number = _mix(seed)
    first = number % count
    return first, (first + 1 + (number >> 32) % (count - 1)) % count


def start(_: ModelSpec) -> int:
    """Another seed in each gateway."""
    return secrets.randbits(64)


def learn(seed: int, _: RoutingHints, __: int) -> int:
    """The next seed."""
    return (seed + STEP) & MASK


def _mix(seed: int) -> int:
    mixed = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB & MASK
    return mixed ^ (mixed >> 31)


POLICY: RoutingPolicy[int] = RoutingPolicy(choose=choose, start=start, learn=learn)
