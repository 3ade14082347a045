"""Requests of one session (``x-session-id``) are sent to the same replica while it has room."""

from sage_gateway.routing.least_loaded import start
from sage_gateway.routing.policy import Headers, RoutingHints, RoutingPolicy
from sage_gateway.routing.rendezvous import choose, key_from_header

HEADER = b"x-session-id"


def read(headers: Headers, _: bytes) -> RoutingHints:
    """The session."""
    return key_from_header(headers, HEADER)


POLICY: RoutingPolicy[None] = RoutingPolicy(choose=choose, start=start, read=read)
