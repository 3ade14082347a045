"""Cached answers with their age, in a store that may be unavailable."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from sage_flink.common import StoreUnavailable
from sage_gateway.cache.store_protocol import CacheStore

log = logging.getLogger("sage.gateway")

REST_S = 5.0


class AgedAnswers:
    """Answers of ``store``, given to readers that accept their age.

    The milliseconds of the epoch at which an answer was stored precede it in the store. Where the
    store does not respond, it is not used for ``REST_S``, so that no request waits for it.
    """

    def __init__(self, store: CacheStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._rests_until = 0.0

    async def get(self, keys: Sequence[bytes], ttl_s: int) -> list[bytes | None]:
        """The answer of each key, if there is one that is not older than ``ttl_s``."""
        nothing: list[bytes | None] = [None] * len(keys)
        if time.monotonic() < self._rests_until:
            return nothing
        try:
            stored = await self._store.get(keys)
        except StoreUnavailable as error:
            self._rest(error)
            return nothing
        return [self._young(answer, ttl_s) for answer in stored]

    async def put(self, answers: Mapping[bytes, bytes], ttl_s: int) -> bool:
        """Store the answers for ``ttl_s``; whether they were stored."""
        if time.monotonic() < self._rests_until:
            return False
        at = b"%d\n" % (self._clock() * 1000)
        try:
            await self._store.put({key: at + answer for key, answer in answers.items()}, ttl_s)
        except StoreUnavailable as error:
            self._rest(error)
            return False
        return True

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()

    def _young(self, stored: bytes | None, ttl_s: int) -> bytes | None:
        if stored is None:
            return None
        stored_ms, _, answer = stored.partition(b"\n")
        return answer if self._clock() - int(stored_ms) / 1000 <= ttl_s else None

    def _rest(self, error: StoreUnavailable) -> None:
        log.warning("cache: %s; answering without it for %g s", error, REST_S)
        self._rests_until = time.monotonic() + REST_S
