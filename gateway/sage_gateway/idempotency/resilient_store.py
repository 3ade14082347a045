"""A store whose failures are nobody's: what cannot be kept now is answered all the same.

A store that fails is left alone for ``REST_S``: a locked file or a Redis that went away costs one
slow answer and a line in the log, not each answer a second. How long is too long a store knows
itself: a timeout here cost each answer more than the journal does.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterator
from enum import Enum, auto

from sage_gateway.idempotency.counters import Counts
from sage_gateway.idempotency.store_protocol import Recorded, Running, Store

log = logging.getLogger("sage.gateway")

PATIENCE_S = 2.0
REST_S = 5.0


class Away(Enum):
    """In place of an answer: the store cannot be asked now."""

    AWAY = auto()


class Keeper:
    """The store as the ledger sees it. No method raises but for cancellation."""

    def __init__(self, store: Store, counts: Counts) -> None:
        self._store = store
        self._counts = counts
        self._rests_until = 0.0

    async def open(self) -> None:
        """Open the store; one that cannot be opened is tried again later."""
        with self._forgiven("open"):
            async with asyncio.timeout(60.0):  # a large file is read
                await self._store.open()

    async def claim(self, key: bytes, digest: bytes) -> Recorded | Running | Away | None:
        """As the port has it."""
        if self._rests():
            return Away.AWAY
        try:
            return await self._store.claim(key, digest)
        except Exception as error:
            self._rest("look up an answer", error)
            return Away.AWAY

    async def record(self, key: bytes, answer: Recorded) -> bool:
        """Whether it is kept."""
        if self._rests():
            return False
        begun = time.perf_counter()
        try:
            await self._store.record(key, answer)
        except Exception as error:
            self._rest("record an answer", error)
            return False
        self._counts.write_seconds.observe(time.perf_counter() - begun)
        self._counts.records.inc()
        return True

    async def release(self, key: bytes) -> None:
        """End a claim. Tried even in a rest: a claim that stays would make others wait."""
        with self._forgiven("release a call"):
            await self._store.release(key)

    async def close(self) -> None:
        """Close the store."""
        with self._forgiven("close"):
            async with asyncio.timeout(PATIENCE_S):
                await self._store.close()

    def _rests(self) -> bool:
        return time.monotonic() < self._rests_until

    @contextlib.contextmanager
    def _forgiven(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._rest(what, error)

    def _rest(self, what: str, error: Exception) -> None:
        """After an error of whatever kind: a request must not fail of its bookkeeping."""
        self._counts.errors.inc()
        if not self._rests():
            why = str(error) or type(error).__name__
            message = "ledger: cannot %s (%s); answering without it for %g s"
            log.warning(message, what, why, REST_S)
        self._rests_until = time.monotonic() + REST_S
