"""Headers of every answer: the request's id, and what a browser needs to hand it to another site.

Source of the latter: the Fetch standard, CORS protocol.
"""

import itertools
import secrets
from collections.abc import Collection

from sage_gateway.requests.request import Headers, client_request_id
from sage_gateway.requests.response import Response

Lines = tuple[tuple[bytes, bytes], ...]

READS = frozenset({"GET", "HEAD", "OPTIONS"})
ANY_ORIGIN = "*"
EXPOSED = b"x-request-id, retry-after, x-sage-ledger, x-sage-cache"
METHODS = b"GET, POST, PUT, DELETE"
PREFLIGHT_S = b"600"
_PROCESS = secrets.token_hex(5)
_NUMBERS = itertools.count(1)


def request_id_of(headers: Headers) -> str:
    """The client's id of a request, or a new one."""
    return client_request_id(headers) or f"req-{_PROCESS}-{next(_NUMBERS):x}"


def id_line(request_id: str) -> tuple[bytes, bytes]:
    """The header with the request's id."""
    return (b"x-request-id", request_id.encode("ascii"))


class Origins:
    """The sites whose pages may call the gateway: ``https://host[:port]``, or ``*`` for all."""

    def __init__(self, allowed: Collection[str]) -> None:
        self._any = ANY_ORIGIN in allowed
        self._allowed = frozenset(origin.encode() for origin in allowed)

    def lines(self, headers: Headers) -> Lines:
        """The headers of an answer to a page of an allowed site; none for others."""
        origin = headers.get(b"origin")
        if origin is None or not (self._any or origin in self._allowed):
            return ()
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", EXPOSED),
            (b"vary", b"origin"),
        )

    def preflight(self, headers: Headers) -> Response | None:
        """The answer to a browser that asks whether a page may send a request; None if not asked.

        It needs no key: browsers send none. It also has the headers of every answer.
        """
        if b"access-control-request-method" not in headers:
            return None
        if not self.lines(headers):
            return Response(403, b"", ())
        wanted = headers.get(b"access-control-request-headers", b"authorization, content-type")
        more = (
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", wanted),
            (b"access-control-max-age", PREFLIGHT_S),
        )
        return Response(204, b"", more)
