"""Response cache store in memory; the least recently used answers are evicted first."""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from typing_extensions import override

from sage_gateway.cache.store_protocol import ROW_BYTES, CacheStore


class MemoryCacheStore(CacheStore):
    """The cached answers of one process; lost when it ends."""

    def __init__(self, *, bytes_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_held = 0
        self._bytes_max = bytes_max
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()

    @override
    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._get(key) for key in keys]

    @override
    async def put(self, answers: Mapping[bytes, bytes], ttl_s: int) -> None:
        for key, answer in answers.items():
            self._put(key, answer, ttl_s)

    @override
    async def clear(self) -> None:
        self._answers.clear()
        self.bytes_held = 0

    @override
    async def close(self) -> None:
        pass

    def _get(self, key: bytes) -> bytes | None:
        expires_s, answer = self._answers.get(key, (0.0, None))
        if answer is None:
            return None
        if expires_s <= self._clock():
            self._remove(key)
            return None
        self._answers.move_to_end(key)
        return answer

    def _put(self, key: bytes, answer: bytes, ttl_s: int) -> None:
        self._remove(key)
        self._answers[key] = (self._clock() + ttl_s, answer)
        self.bytes_held += len(answer) + ROW_BYTES
        while self.bytes_held > self._bytes_max:
            self._remove(next(iter(self._answers)))

    def _remove(self, key: bytes) -> None:
        _, answer = self._answers.pop(key, (0.0, None))
        if answer is not None:
            self.bytes_held -= len(answer) + ROW_BYTES
