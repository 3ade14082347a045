"""Answers in this process; the ones unused for longest go first."""

import time
from collections import OrderedDict
from collections.abc import Callable

from sage_gateway.cache.store_protocol import ROW_BYTES


class MemoryStore:
    """One process, gone with it."""

    def __init__(self, *, bytes_max: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_held = 0
        self._bytes_max = bytes_max
        self._clock = clock
        self._answers: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()

    async def get(self, key: bytes) -> bytes | None:
        """As the port has it."""
        ends_s, answer = self._answers.get(key, (0.0, None))
        if answer is None:
            return None
        if ends_s <= self._clock():
            self._drop(key)
            return None
        self._answers.move_to_end(key)
        return answer

    async def put(self, key: bytes, answer: bytes, ttl_s: int) -> None:
        """As the port has it."""
        self._drop(key)
        self._answers[key] = (self._clock() + ttl_s, answer)
        self.bytes_held += len(answer) + ROW_BYTES
        while self.bytes_held > self._bytes_max:
            self._drop(next(iter(self._answers)))

    async def close(self) -> None:
        """Nothing to do."""

    def _drop(self, key: bytes) -> None:
        _, answer = self._answers.pop(key, (0.0, None))
        if answer is not None:
            self.bytes_held -= len(answer) + ROW_BYTES
