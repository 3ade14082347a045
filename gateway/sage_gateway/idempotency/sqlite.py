"""Answers in a SQLite file: what one gateway keeps over a crash of its process.

An answer is safe once the journal has it (:mod:`write_ahead_log`) and in the file soon after.
The event loop reads no file: which keys there are it knows by itself (about 80 bytes each), so that
a new id, the common case, costs no trip to the thread that owns the file (:mod:`rows`).
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from sage_flink.common import StoreUnavailable
from sage_gateway.idempotency.sqlite_tables import Kept, Rows
from sage_gateway.idempotency.store_protocol import ROW_BYTES, Recorded, Running
from sage_gateway.runtime.worker_thread import WorkerThread
from sage_gateway.storage.write_ahead_log import BYTES_MAX, Journal

EVICT_EVERY_S = 1.0
PATIENCE_S = 2.0


class SqliteStore:
    """The file at ``path``; beyond ``file_bytes_max`` it takes no more, whatever it holds."""

    def __init__(
        self, path: Path, *, ttl_s: float, bytes_max: int, file_bytes_max: int | None = None
    ) -> None:
        file_max = file_bytes_max or 2 * bytes_max + (16 << 20)
        self._ttl_s = ttl_s
        self._rows = Rows(path, ttl_s=ttl_s, bytes_max=bytes_max, file_bytes_max=file_max)
        self._thread = WorkerThread("ledger", self._rows.failed)
        self._journal = Journal(
            path,
            Kept,
            self._thread,
            self._rows.insert,
            self._is_written,
            bytes_max=min(BYTES_MAX, file_max),
        )
        #: Answers that the file may not have yet.
        self._waiting: dict[bytes, Kept] = {}
        self._claims: dict[bytes, bytes] = {}
        self._ready = False
        self._evicting: asyncio.Task[None] | None = None

    @property
    def bytes_held(self) -> int:
        """As the port has it."""
        waiting = sum(len(kept.body) + ROW_BYTES for kept in self._waiting.values())
        return self._rows.bytes_held + waiting

    @property
    def evicted(self) -> int:
        """As the port has it."""
        return self._rows.evicted

    async def open(self) -> None:
        """Read which keys there are, those of the last process's journal as well.

        Raises:
            StoreUnavailable: the file cannot be had now; later calls try again.
        """
        if self._evicting is None:
            self._evicting = asyncio.create_task(self._evict(), name="ledger")
        await self._opened()

    async def claim(self, key: bytes, digest: bytes) -> Recorded | Running | None:
        """As the port has it; a new key is answered without leaving the loop."""
        if not self._ready:
            await self._opened()
        kept = self._waiting.get(key)
        if kept is not None and kept.at >= time.time() - self._ttl_s:
            return kept.recorded()
        if key in self._rows.known:
            async with asyncio.timeout(PATIENCE_S):
                found = await self._thread(self._rows.find, key)
            if found:
                return found
        if key in self._claims:
            return Running(self._claims[key])
        self._claims[key] = digest
        return None

    async def record(self, key: bytes, answer: Recorded) -> None:
        """As the port has it: on return the kernel has it.

        Raises:
            StoreUnavailable: no room, or too much waits to be written.
        """
        if not self._ready:
            await self._opened()
        if key not in self._waiting:
            kept = Kept(key, answer.digest, answer.stream, time.time(), answer.body)
            self._journal.append(kept)
            self._waiting[key] = kept
        self._claims.pop(key, None)

    async def release(self, key: bytes) -> None:
        """As the port has it."""
        self._claims.pop(key, None)

    async def close(self) -> None:
        """Write what waits and close the file."""
        self._claims.clear()
        if self._evicting is not None:
            self._evicting.cancel()
        await self._journal.close()
        await self._thread(self._rows.close)
        await self._thread.close()

    async def _opened(self) -> None:
        await self._thread(self._rows.open)
        await self._thread(self._journal.recover)
        self._ready = True

    def _is_written(self, entries: Sequence[Kept]) -> None:
        for kept in entries:
            if self._waiting.get(kept.key) is kept:
                del self._waiting[kept.key]

    async def _evict(self) -> None:
        while True:
            await asyncio.sleep(EVICT_EVERY_S)
            with contextlib.suppress(StoreUnavailable):  # whoever writes tells it
                await self._thread(self._rows.evict)
