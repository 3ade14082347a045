"""Idempotency store in memory: the reference of the protocol, and the store of cheap answers.

Embeddings and reranks are always kept here, not with the generations: an engine computes them
again in milliseconds, and many vectors must not evict answers that took seconds. The oldest answer
is evicted first and evictions are counted, which ``cachetools`` does not offer.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from typing_extensions import override

from sage_gateway.idempotency.store_protocol import (
    ROW_BYTES,
    IdempotencyStore,
    RecordedAnswer,
    RunningCall,
)


class MemoryIdempotencyStore(IdempotencyStore):
    """The answers of one process; lost when it ends."""

    def __init__(
        self, *, ttl_s: float, bytes_max: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ttl_s = ttl_s
        self._bytes_max = bytes_max
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[float, RecordedAnswer]] = OrderedDict()
        self._claims: dict[bytes, bytes] = {}
        self._bytes = 0
        self._evictions = 0

    @property
    @override
    def bytes_held(self) -> int:
        return self._bytes

    @property
    @override
    def evictions(self) -> int:
        return self._evictions

    @override
    async def open(self) -> None:
        pass

    @override
    async def claim(self, key: bytes, digest: bytes) -> RecordedAnswer | RunningCall | None:
        self._evict()
        if known := self._answers.get(key):
            return known[1]
        if key in self._claims:
            return RunningCall(self._claims[key])
        self._claims[key] = digest
        return None

    @override
    async def record(self, key: bytes, answer: RecordedAnswer) -> None:
        self._claims.pop(key, None)
        if key not in self._answers:
            self._answers[key] = (self._clock(), answer)
            self._bytes += len(answer.body) + ROW_BYTES
            self._evict()

    @override
    async def release(self, key: bytes) -> None:
        self._claims.pop(key, None)

    @override
    async def close(self) -> None:
        self._claims.clear()

    def _evict(self) -> None:
        oldest_s = self._clock() - self._ttl_s
        while self._answers:
            at_s, answer = next(iter(self._answers.values()))
            if at_s > oldest_s and self._bytes <= self._bytes_max:
                return
            self._answers.popitem(last=False)
            self._bytes -= len(answer.body) + ROW_BYTES
            self._evictions += 1
