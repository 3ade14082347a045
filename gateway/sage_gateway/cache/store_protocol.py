"""Protocol of the stores of cached answers; ``tests/conformance/test_cache.py`` tests them all."""

from collections.abc import Mapping, Sequence
from typing import Protocol

#: Bytes counted for an answer in addition to its own; bounds the number of tiny ones.
ROW_BYTES = 128


class CacheStore(Protocol):
    """Bounded by bytes, ``ROW_BYTES`` added for each answer; the eviction order is up to the store.

    All methods but ``close`` may raise ``StoreUnavailable``.
    """

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The answer of each key, in their order; None if it has expired or was evicted."""
        ...

    async def put(self, answers: Mapping[bytes, bytes], ttl_s: int) -> None:
        """Store answers by their key for ``ttl_s``, in place of earlier ones."""
        ...

    async def clear(self) -> None:
        """Remove all answers of the store, also other gateways'. One that is put now may stay."""
        ...

    async def close(self) -> None:
        """Close the connections. Answers in a shared store and in a file stay."""
        ...
