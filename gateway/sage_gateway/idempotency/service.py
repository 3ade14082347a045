"""The ledger as the front uses it: which calls are answered once, and kept where."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry

from sage_gateway.config.pool_spec import LedgerSpec
from sage_gateway.idempotency.counters import Counts
from sage_gateway.idempotency.decisions import Ticket, issued
from sage_gateway.idempotency.in_flight_calls import Ask, Limits, Once
from sage_gateway.idempotency.memory import MemoryStore
from sage_gateway.idempotency.store_protocol import Store
from sage_gateway.requests.response import Answer, Stream

GENERATIONS = frozenset({"/v1/chat/completions", "/v1/completions"})
CHEAP = frozenset({"/v1/embeddings", "/v1/rerank"})
CHEAP_BYTES_MAX = 16 << 20


class Ledger:
    """A ``POST`` that names an id has a ticket, and is answered once by it; others just pass."""

    def __init__(self, spec: LedgerSpec, folder: Path, registry: CollectorRegistry) -> None:
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
        """On the loop that serves; whatever is wrong with the store, this returns."""
        for once in self._onces.values():
            await once.open()

    async def close(self) -> None:
        """End the calls that still run."""
        for once in self._onces.values():
            await once.close()

    def issued(
        self, path: str, headers: Iterable[tuple[bytes, bytes]], body: bytes
    ) -> Ticket | None:
        """The ticket of ``POST path``; None where it is not answered once."""
        return issued(path, headers, body) if path in self._by_path else None

    async def answer(self, path: str, ticket: Ticket, ask: Ask) -> Answer | Stream:
        """The answer to ``ticket``, issued for ``path``; by ``ask`` unless it is known or coming.

        Raises:
            GatewayError: 422, the id belongs to another body.
        """
        return await self._by_path[path].answer(ticket, ask)


def _store(spec: LedgerSpec, folder: Path) -> Store:
    if spec.store == "sqlite":
        from sage_gateway.idempotency.sqlite import SqliteStore

        path = folder / "ledger.sqlite"
        return SqliteStore(path, ttl_s=spec.ttl_s, bytes_max=spec.bytes_max)
    from sage_gateway.idempotency.redis import RedisStore

    assert spec.url is not None, "checked with the file"
    return RedisStore(spec.url, ttl_s=spec.ttl_s, bytes_max=spec.bytes_max, lease_s=spec.lease_s)
