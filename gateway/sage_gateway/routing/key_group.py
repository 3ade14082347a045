"""Requests of one key group of the stream (``x-key-group``) are sent to the same replica.

A key's group is a function of the key and the job's maximum parallelism. It outlives a change of
parallelism, so a rescaled job finds its caches on the same replicas.
"""

from sage_gateway.requests.request import Request
from sage_gateway.routing.least_loaded import start
from sage_gateway.routing.policy import RoutingHints, RoutingPolicy
from sage_gateway.routing.rendezvous import choose, key_from_header

HEADER = b"x-key-group"


def read(request: Request) -> RoutingHints:
    """The key group."""
    return key_from_header(request, HEADER)


POLICY: RoutingPolicy[None] = RoutingPolicy(choose=choose, start=start, read=read)
