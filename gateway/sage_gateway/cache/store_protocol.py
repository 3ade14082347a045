"""Protocol of the response cache stores; ``tests/conformance/test_cache.py`` tests them all."""

from typing import Protocol

#: Bytes counted for an answer in addition to its own; bounds the number of tiny ones.
ROW_BYTES = 128


class CacheStore(Protocol):
    """Bounded by bytes, ``ROW_BYTES`` added for each answer; the eviction order is up to the store.

    All methods but ``close`` may raise ``StoreUnavailable``.
    """

    async def get(self, key: bytes) -> bytes | None:
        """The answer, unless it has expired or was evicted."""
        ...

    async def put(self, key: bytes, answer: bytes, ttl_s: int) -> None:
        """CacheStore ``answer`` for ``ttl_s``, in place of an earlier one."""
        ...

    async def close(self) -> None:
        """Close the connections. Answers in a shared store stay."""
        ...
