"""Idempotency: a request with an id is answered once, and its answer is recorded.

The user-facing name is the generation ledger: an answer that was generated is paid for once.
"""

from collections.abc import Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry

from sage_gateway.config.storage_spec import LedgerSpec
from sage_gateway.idempotency.counters import IdempotencyMetrics
from sage_gateway.idempotency.decisions import idempotency_key
from sage_gateway.idempotency.in_flight_calls import InFlightCalls, InFlightLimits
from sage_gateway.idempotency.memory import MemoryIdempotencyStore
from sage_gateway.idempotency.store_protocol import IdempotencyStore
from sage_gateway.requests.request import Answering, Handler, Request

GENERATIONS = frozenset({"/v1/chat/completions", "/v1/completions"})
VECTORS = frozenset({"/v1/embeddings", "/v1/rerank"})
VECTORS_BYTES_MAX = 16 << 20


class Idempotency:
    """Handler that sends a request with an id to the next handler once, and passes on others."""

    def __init__(
        self, spec: LedgerSpec, folder: Path, registry: CollectorRegistry, next_: Handler
    ) -> None:
        self._next = next_
        self._by_store: dict[str, InFlightCalls] = {}
        self._by_path: Mapping[str, InFlightCalls] = {}
        if spec.store == "off":
            return
        metrics = IdempotencyMetrics(registry)
        vectors = MemoryIdempotencyStore(ttl_s=spec.ttl_s, bytes_max=VECTORS_BYTES_MAX)
        metrics.stores.update(generations=_store(spec, folder), vectors=vectors)
        limits = InFlightLimits(spec.answer_bytes_max, spec.grace_s, spec.orphans_max)
        self._by_store = {
            name: InFlightCalls(store, next_.handle, limits=limits, metrics=metrics)
            for name, store in metrics.stores.items()
        }
        self._by_path = {
            **dict.fromkeys(GENERATIONS, self._by_store["generations"]),
            **dict.fromkeys(VECTORS, self._by_store["vectors"]),
        }

    async def open(self) -> None:
        """Open the stores, on the loop that serves; an unavailable store does not prevent it."""
        for calls in self._by_store.values():
            await calls.open()

    async def close(self) -> None:
        """Abort the calls in flight and close the stores."""
        for calls in self._by_store.values():
            await calls.close()

    def handle(self, request: Request) -> Answering:
        """The recorded answer, that of the same call in flight, or that of the next handler.

        Raises:
            IdempotencyKeyReused: the id belongs to another body.
            GatewayError: as the next handler.
        """
        calls = self._by_path.get(request.path)
        key = idempotency_key(request.path, request.headers, request.body) if calls else None
        if calls is None or key is None:
            return self._next.handle(request)
        if request.path in GENERATIONS:
            request.record_key = key.name
        return calls.answer(key, request)


def _store(spec: LedgerSpec, folder: Path) -> IdempotencyStore:
    if spec.store == "sqlite":
        from sage_gateway.idempotency.sqlite import SqliteIdempotencyStore

        path = folder / "ledger.sqlite"
        return SqliteIdempotencyStore(path, ttl_s=spec.ttl_s, bytes_max=spec.bytes_max)
    from sage_gateway.idempotency.redis import RedisIdempotencyStore

    return RedisIdempotencyStore(
        spec.redis, ttl_s=spec.ttl_s, bytes_max=spec.bytes_max, lease_s=spec.lease_s
    )
