"""Requests of one session (``x-session-id``) go to the same replica while it has room."""

from sage_gateway.routing.least_loaded import start
from sage_gateway.routing.policy import Headers, Hints, Policy
from sage_gateway.routing.rendezvous import choose, named

HEADER = b"x-session-id"


def read(headers: Headers, _: bytes) -> Hints:
    """The session."""
    return named(headers, HEADER)


POLICY: Policy[None] = Policy(choose=choose, start=start, read=read)
