"""Rendezvous hashing: a key's replica is the one with the greatest weight for that key.

When a replica goes, only its own keys move, each to the next in its own order; when it comes back,
they return. Source: Thaler and Ravishankar, Using Name-Based Mappings to Increase Hit Rates (1998).
"""

from collections.abc import Sequence
from hashlib import shake_128

from sage_gateway.requests.request import Request
from sage_gateway.routing.least_loaded import least
from sage_gateway.routing.policy import NO_HINTS, PLACE, Candidate, Hints

WEIGHT_BYTES = 8


def choose(candidates: Sequence[Candidate], hints: Hints, _: None) -> int:
    """The index with the greatest weight for the key; of a request without one, the least busy."""
    if not hints.key:
        return least(candidates).place
    weights = weighed(hints.key, candidates[-1].place + 1).tolist()
    return max(map(PLACE, candidates), key=weights.__getitem__)


def weighed(key: bytes, count: int) -> memoryview:
    """The weights of the first ``count`` replicas for ``key``, in every gateway the same.

    One hash for all: SHAKE's output only grows with ``count``, so a weight does not depend on how
    many replicas there are.
    """
    return memoryview(shake_128(key).digest(WEIGHT_BYTES * count)).cast("Q")


def named(request: Request, name: bytes) -> Hints:
    """The value of header ``name`` as the key."""
    key = request.headers.get(name)
    return NO_HINTS if key is None else Hints(key=key)
