"""The port of the cache; ``tests/conformance/test_cache.py`` holds every store to it."""

from typing import Protocol

#: What an answer costs besides its bytes; bounds the count of tiny ones.
ROW_BYTES = 128


class Store(Protocol):
    """Bounded by bytes, ``ROW_BYTES`` added for each answer; which go first is the store's choice.

    Methods but ``close`` may raise ``StoreUnavailable``.
    """

    async def get(self, key: bytes) -> bytes | None:
        """What was put there, unless its time is over or it had to go."""
        ...

    async def put(self, key: bytes, answer: bytes, ttl_s: int) -> None:
        """Keep ``answer`` for so long, in place of what was there."""
        ...

    async def close(self) -> None:
        """Let go of connections; what is kept stays where it outlives a process."""
        ...
