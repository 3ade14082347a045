"""Requests of one session (``x-session-id``) go to the same replica while it has room."""

from sage_gateway.requests.request import Request
from sage_gateway.routing.least_loaded import start
from sage_gateway.routing.policy import Hints, Policy
from sage_gateway.routing.rendezvous import choose, named

HEADER = b"x-session-id"


def read(request: Request) -> Hints:
    """The session."""
    return named(request, HEADER)


POLICY: Policy[None] = Policy(choose=choose, start=start, read=read)
