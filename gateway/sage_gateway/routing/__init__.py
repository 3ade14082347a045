"""Which replica gets a request. One more policy: a file here, its name in ``pool_spec.Routing``.

A policy is a value of pure functions (:class:`Policy`); what it remembers is kept by the model's
one :class:`Router`.
"""

from sage_gateway.routing.policy import NO_HINTS, Candidate, Hints, Policy, eligible
from sage_gateway.routing.router import POLICIES, Router

__all__ = [
    "NO_HINTS",
    "POLICIES",
    "Candidate",
    "Hints",
    "Policy",
    "Router",
    "eligible",
]
