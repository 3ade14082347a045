"""Requests of one key group of the stream (``x-key-group``) go to the same replica.

A key's group is a function of the key and the job's maximum parallelism: it outlives a change of
parallelism, so a rescaled job finds its caches where they were.
"""

from sage_gateway.requests.request import Request
from sage_gateway.routing.least_loaded import start
from sage_gateway.routing.policy import Hints, Policy
from sage_gateway.routing.rendezvous import choose, named

HEADER = b"x-key-group"


def read(request: Request) -> Hints:
    """The key group."""
    return named(request, HEADER)


POLICY: Policy[None] = Policy(choose=choose, start=start, read=read)
