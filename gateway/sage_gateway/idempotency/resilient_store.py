"""Wraps a store so that its failures never fail a request.

After an error the store is skipped for ``REST_S`` seconds, so a locked file or an unreachable Redis
delays one answer and logs one line, not one each request. Stores bound their own calls: a timeout
here cost each answer more than the write-ahead log does.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from enum import Enum, auto

from sage_gateway.idempotency.counters import IdempotencyMetrics
from sage_gateway.idempotency.store_protocol import IdempotencyStore, RecordedAnswer, RunningCall

log = logging.getLogger("sage.gateway")

#: A large file is read when it is opened.
OPEN_S = 60.0
CLOSE_S = 2.0
REST_S = 5.0


class Unavailable(Enum):
    """Returned in place of an answer while the store is unavailable."""

    UNAVAILABLE = auto()


class ResilientStore:
    """A store whose methods raise cancellation only."""

    def __init__(self, store: IdempotencyStore, metrics: IdempotencyMetrics) -> None:
        self._store = store
        self._metrics = metrics
        self._rests_until_s = 0.0

    async def open(self) -> None:
        """Open the store; if that fails, its next call tries again."""
        with self._suppress_errors("open"):
            async with asyncio.timeout(OPEN_S):
                await self._store.open()

    async def claim(
        self, key: bytes, digest: bytes
    ) -> RecordedAnswer | RunningCall | Unavailable | None:
        """As :meth:`IdempotencyStore.claim`."""
        if self._rests():
            return Unavailable.UNAVAILABLE
        try:
            return await self._store.claim(key, digest)
        except Exception as error:
            self._rest("look up an answer", error)
            return Unavailable.UNAVAILABLE

    async def record(self, key: bytes, answer: RecordedAnswer) -> bool:
        """Record ``answer``; whether that succeeded."""
        if self._rests():
            return False
        start = time.perf_counter()
        try:
            await self._store.record(key, answer)
        except Exception as error:
            self._rest("record an answer", error)
            return False
        self._metrics.write_seconds.observe(time.perf_counter() - start)
        self._metrics.records += 1
        return True

    async def release(self, key: bytes) -> None:
        """End a claim. Tried even during a rest: a leftover claim would make other calls wait."""
        with self._suppress_errors("release a call"):
            await self._store.release(key)

    async def close(self) -> None:
        """Close the store, within ``CLOSE_S``."""
        with self._suppress_errors("close"):
            async with asyncio.timeout(CLOSE_S):
                await self._store.close()

    def _rests(self) -> bool:
        return time.monotonic() < self._rests_until_s

    @contextlib.contextmanager
    def _suppress_errors(self, action: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._rest(action, error)

    def _rest(self, action: str, error: Exception) -> None:
        """Count the error, log it, and skip the store for ``REST_S``."""
        self._metrics.errors.inc()
        if not self._rests():
            reason = str(error) or type(error).__name__
            message = "idempotency: cannot %s (%s); answering without the store for %g s"
            log.warning(message, action, reason, REST_S)
        self._rests_until_s = time.monotonic() + REST_S
