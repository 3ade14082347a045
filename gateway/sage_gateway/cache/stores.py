"""Where cached answers are kept."""

from pathlib import Path

from sage_gateway.cache.memory import MemoryCacheStore
from sage_gateway.cache.sqlite import SqliteCacheStore
from sage_gateway.cache.store_protocol import CacheStore
from sage_gateway.config.storage_spec import CacheSpec, LedgerSpec


def response_store(spec: CacheSpec, ledger: LedgerSpec) -> CacheStore:
    """Redis where the idempotency store is there, else this process's memory."""
    if ledger.store == "redis":
        from sage_gateway.cache.redis import RedisCacheStore

        return RedisCacheStore(ledger.redis, bytes_max=spec.bytes_max)
    return MemoryCacheStore(bytes_max=spec.bytes_max)


def vector_store(spec: CacheSpec, data: Path) -> CacheStore:
    """A file of this gateway: the vectors of a corpus would evict all else in a shared Redis."""
    return SqliteCacheStore(data / "vectors.sqlite", bytes_max=spec.embedding_bytes_max)
