"""One call of a known key, through all that keeps account of it: cache, ledger, tenants, pool.

HTTP (:mod:`front`) and the lines of batches (:mod:`batches`) come in here.
"""

from collections.abc import Awaitable, Sequence

from sage_gateway.batches.batch_store import OwnedBatch
from sage_gateway.cache import Cache
from sage_gateway.cache.response_cache import wished_ttl_s
from sage_gateway.errors import GatewayError, InvalidKey
from sage_gateway.idempotency import Ledger
from sage_gateway.idempotency.service import GENERATIONS
from sage_gateway.inference.service import Service
from sage_gateway.requests.response import Answer, Stream, refused
from sage_gateway.tenants import Key, Tenants
from sage_gateway.tenants.tenants import tenant_of

Headers = Sequence[tuple[bytes, bytes]]

REQUEST_ID = b"x-request-id"
REQUEST_ID_CHARS_MAX = 200
BATCH_JOB = b"batches"


class Accounted:
    """The way from a key to an answer."""

    def __init__(self, tenants: Tenants, service: Service, ledger: Ledger, cache: Cache) -> None:
        self._tenants = tenants
        self._service = service
        self._ledger = ledger
        self._cache = cache

    async def answer(self, key: Key, path: str, headers: Headers, body: bytes) -> Answer | Stream:
        """The answer to ``POST path``; an error is one too. Header names are in lower case."""

        def engine(tenant: str) -> Awaitable[Answer | Stream]:
            return self._service.answer(
                path, body, request_id=_request_id(headers), headers=headers, tenant=tenant
            )

        ticket = self._ledger.issued(path, headers, body)
        kept = ticket.key if ticket is not None and path in GENERATIONS else b""

        def ask() -> Awaitable[Answer | Stream]:
            return self._tenants.answer(key, path, headers, body, engine, once=kept)

        def once() -> Awaitable[Answer | Stream]:
            return ask() if ticket is None else self._ledger.answer(path, ticket, ask)

        try:
            wished_s = wished_ttl_s(headers)
            if not (wished_s or key.cache_ttl_s):
                return await once()
            tenant, ttl_s = tenant_of(key, dict(headers)), wished_s or key.cache_ttl_s
            return await self._cache.answer(
                tenant, path, body, once, ttl_s=ttl_s, whatever=bool(wished_s)
            )
        except GatewayError as error:
            return refused(error)

    async def line(self, owned: OwnedBatch, path: str, request_id: str, body: bytes) -> Answer:
        """The answer to a line of a batch, as background work of its tenant and its key."""
        key = self._tenants.keys.named(owned.key)
        if key is None:
            return refused(InvalidKey("the key of this batch was revoked"))
        headers = [
            (REQUEST_ID, request_id.encode()),
            (b"x-sage-tenant", owned.tenant.encode()),
            (b"x-sage-priority", b"background"),
            (b"x-sage-job", BATCH_JOB),
        ]
        found = await self.answer(key, path, headers, body)
        assert isinstance(found, Answer), "a line that asks for a stream is refused before"
        return found


def _request_id(headers: Headers) -> str:
    for name, value in headers:
        if name == REQUEST_ID:
            text: str = value.decode("latin-1")[:REQUEST_ID_CHARS_MAX]
            return text if text.isprintable() else ""
    return ""
