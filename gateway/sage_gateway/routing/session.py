"""Requests of one session (``x-session-id``) are sent to the same replica while it has room."""

from sage_gateway.requests.request import Request
from sage_gateway.routing.least_loaded import start
from sage_gateway.routing.policy import RoutingHints, RoutingPolicy
from sage_gateway.routing.rendezvous import choose, key_from_header

HEADER = b"x-session-id"


def read(request: Request) -> RoutingHints:
    """The session."""
    return key_from_header(request, HEADER)


POLICY: RoutingPolicy[None] = RoutingPolicy(choose=choose, start=start, read=read)
