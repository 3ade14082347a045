"""Answers in this process: the reference of the port, and the keeper of what is cheap to redo.

Embeddings and reranks are kept here whatever the store of the generations is: an engine makes them
again in milliseconds, and a flood of vectors must not push out answers that took seconds.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from sage_gateway.idempotency.store_protocol import ROW_BYTES, Recorded, Running


class MemoryStore:
    """One process, gone with it."""

    def __init__(
        self, *, ttl_s: float, bytes_max: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ttl_s = ttl_s
        self._bytes_max = bytes_max
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[float, Recorded]] = OrderedDict()
        self._claims: dict[bytes, bytes] = {}
        self.bytes_held = 0
        self.evicted = 0

    async def open(self) -> None:
        """Nothing to do."""

    async def claim(self, key: bytes, digest: bytes) -> Recorded | Running | None:
        """As the port has it."""
        self._evict()
        if known := self._answers.get(key):
            return known[1]
        if key in self._claims:
            return Running(self._claims[key])
        self._claims[key] = digest
        return None

    async def record(self, key: bytes, answer: Recorded) -> None:
        """As the port has it; lost with the process."""
        self._claims.pop(key, None)
        if key not in self._answers:
            self._answers[key] = (self._clock(), answer)
            self.bytes_held += len(answer.body) + ROW_BYTES
            self._evict()

    async def release(self, key: bytes) -> None:
        """As the port has it."""
        self._claims.pop(key, None)

    async def close(self) -> None:
        """Claims end."""
        self._claims.clear()

    def _evict(self) -> None:
        too_old = self._clock() - self._ttl_s
        while self._answers:
            at, oldest = next(iter(self._answers.values()))
            if at > too_old and self.bytes_held <= self._bytes_max:
                return
            self._answers.popitem(last=False)
            self.bytes_held -= len(oldest.body) + ROW_BYTES
            self.evicted += 1
