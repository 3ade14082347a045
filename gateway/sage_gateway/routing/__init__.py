"""Routing: the choice of a replica for a request.

``policy`` is the interface of a routing policy, with the rule which replicas are eligible at all.
The policies are ``least_loaded``, ``round_robin``, ``power_of_two``, ``prefix``, ``session`` and
``key_group``, one file each; ``rendezvous`` is the hashing of the last two. ``router`` owns what a
model's policy remembers, ``candidate_set`` keeps the replicas ready for a decision. A further
policy is a file with ``POLICY`` and its name in ``pool_spec.Routing``.
"""

from sage_gateway.routing.policy import (
    NO_HINTS,
    Candidate,
    RoutingHints,
    RoutingPolicy,
    eligible,
)
from sage_gateway.routing.router import POLICIES, Router

__all__ = [
    "NO_HINTS",
    "POLICIES",
    "Candidate",
    "Router",
    "RoutingHints",
    "RoutingPolicy",
    "eligible",
]
