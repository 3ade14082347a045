"""Rendezvous hashing: a key's replica is the one with the greatest weight for that key.

When a replica is removed, only its own keys move, each to the next replica in its own order; when
the replica returns, so do they. Source: Thaler and Ravishankar, Using Name-Based Mappings to
Increase Hit Rates (1998).
"""

from collections.abc import Sequence
from hashlib import shake_128

from sage_gateway.requests.request import Request
from sage_gateway.routing.least_loaded import least
from sage_gateway.routing.policy import NO_HINTS, SLOT_INDEX, Candidate, RoutingHints

WEIGHT_BYTES = 8


def choose(candidates: Sequence[Candidate], hints: RoutingHints, _: None) -> int:
    """The index with the greatest weight for the key; without a key, the least loaded replica."""
    if not hints.key:
        return least(candidates).slot_index
    weights = key_weights(hints.key, candidates[-1].slot_index + 1).tolist()
    return max(map(SLOT_INDEX, candidates), key=weights.__getitem__)


def key_weights(key: bytes, count: int) -> memoryview:
    """The weights of the first ``count`` replicas for ``key``, equal in every gateway.

    One hash for all: SHAKE's output only grows with ``count``, so a weight does not depend on how
    many replicas there are.
    """
    return memoryview(shake_128(key).digest(WEIGHT_BYTES * count)).cast("Q")


def key_from_header(request: Request, name: bytes) -> RoutingHints:
    """The value of header ``name`` as the key."""
    key = request.headers.get(name)
    return NO_HINTS if key is None else RoutingHints(key=key)
