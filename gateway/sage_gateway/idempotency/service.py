"""Idempotency: a request that names an id is answered once, and its answer is kept.

The user-facing name is the generation ledger: an answer that was generated is paid for once.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from prometheus_client import CollectorRegistry

from sage_gateway.config.pool_spec import LedgerSpec
from sage_gateway.idempotency.counters import Counts
from sage_gateway.idempotency.decisions import issued
from sage_gateway.idempotency.in_flight_calls import Limits, Once
from sage_gateway.idempotency.memory import MemoryStore
from sage_gateway.idempotency.store_protocol import Store
from sage_gateway.requests.request import Handler, Request
from sage_gateway.requests.response import Response, StreamingResponse

GENERATIONS = frozenset({"/v1/chat/completions", "/v1/completions"})
CHEAP = frozenset({"/v1/embeddings", "/v1/rerank"})
CHEAP_BYTES_MAX = 16 << 20


class Idempotency:
    """Handler that sends a request with an id to the next handler once; others just pass."""

    def __init__(
        self, spec: LedgerSpec, folder: Path, registry: CollectorRegistry, next_: Handler
    ) -> None:
        self._next = next_
        self._onces: dict[str, Once] = {}
        self._by_path: Mapping[str, Once] = {}
        if spec.store == "off":
            return
        counts = Counts(registry)
        cheap = MemoryStore(ttl_s=spec.ttl_s, bytes_max=CHEAP_BYTES_MAX)
        counts.stores.update(generations=_store(spec, folder), vectors=cheap)
        limits = Limits(spec.answer_bytes_max, spec.grace_s, spec.orphans_max)
        self._onces = {
            name: Once(store, limits=limits, counts=counts) for name, store in counts.stores.items()
        }
        self._by_path = dict.fromkeys(GENERATIONS, self._onces["generations"]) | dict.fromkeys(
            CHEAP, self._onces["vectors"]
        )

    async def open(self) -> None:
        """Open the stores, on the loop that serves; an unavailable store does not prevent it."""
        for once in self._onces.values():
            await once.open()

    async def close(self) -> None:
        """End the calls that still run."""
        for once in self._onces.values():
            await once.close()

    async def handle(self, request: Request) -> Response | StreamingResponse:
        """The recorded answer, that of the same call in flight, or that of the next handler.

        Raises:
            IdempotencyKeyReused: the id belongs to another body.
            GatewayError: as the next handler.
        """
        calls = self._by_path.get(request.path)
        ticket = issued(request.path, request.headers, request.body) if calls else None
        if calls is None or ticket is None:
            return await self._next.handle(request)
        if request.path in GENERATIONS:
            request.record_key = ticket.key
        return await calls.answer(ticket, partial(self._next.handle, request))


def _store(spec: LedgerSpec, folder: Path) -> Store:
    if spec.store == "sqlite":
        from sage_gateway.idempotency.sqlite import SqliteStore

        path = folder / "ledger.sqlite"
        return SqliteStore(path, ttl_s=spec.ttl_s, bytes_max=spec.bytes_max)
    from sage_gateway.idempotency.redis import RedisStore

    assert spec.url is not None, "checked with the file"
    return RedisStore(spec.url, ttl_s=spec.ttl_s, bytes_max=spec.bytes_max, lease_s=spec.lease_s)
