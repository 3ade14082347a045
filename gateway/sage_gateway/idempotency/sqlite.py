"""Idempotency store in a SQLite file: the answers of one gateway, kept through a crash.

An answer is safe once the write-ahead log has it (:mod:`sage_gateway.storage.write_ahead_log`); the
file has it soon after. The event loop reads no file: it keeps the keys in memory (about 80 bytes
each), so a new key, the usual case, needs no trip to the thread of the file
(:mod:`sage_gateway.idempotency.sqlite_tables`).
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from typing_extensions import override

from sage_flink.common import StoreUnavailable
from sage_gateway.idempotency.sqlite_tables import AnswerBlocks, StoredAnswer
from sage_gateway.idempotency.store_protocol import (
    ROW_BYTES,
    IdempotencyStore,
    RecordedAnswer,
    RunningCall,
)
from sage_gateway.runtime.worker_thread import WorkerThread
from sage_gateway.storage.write_ahead_log import BYTES_MAX, WriteAheadLog

EVICT_EVERY_S = 1.0
READ_TIMEOUT_S = 2.0


class SqliteIdempotencyStore(IdempotencyStore):
    """The file at ``path``, which never grows beyond ``file_bytes_max``."""

    def __init__(
        self, path: Path, *, ttl_s: float, bytes_max: int, file_bytes_max: int | None = None
    ) -> None:
        file_max = file_bytes_max or 2 * bytes_max + (16 << 20)
        self._ttl_s = ttl_s
        self._blocks = AnswerBlocks(path, ttl_s=ttl_s, bytes_max=bytes_max, file_bytes_max=file_max)
        self._thread = WorkerThread("idempotency store", self._blocks.on_error)
        self._log = WriteAheadLog(
            path,
            StoredAnswer,
            self._thread,
            self._blocks.insert,
            self._on_written,
            bytes_max=min(BYTES_MAX, file_max),
        )
        #: Answers that the file may not have yet.
        self._unwritten: dict[bytes, StoredAnswer] = {}
        self._claims: dict[bytes, bytes] = {}
        self._ready = False
        self._evicting: asyncio.Task[None] | None = None

    @property
    @override
    def bytes_held(self) -> int:
        unwritten = sum(len(answer.body) + ROW_BYTES for answer in self._unwritten.values())
        return self._blocks.bytes_held + unwritten

    @property
    @override
    def evictions(self) -> int:
        return self._blocks.evictions

    @override
    async def open(self) -> None:
        if self._evicting is None:
            self._evicting = asyncio.create_task(self._evict(), name="idempotency eviction")
        await self._open_file()

    @override
    async def claim(self, key: bytes, digest: bytes) -> RecordedAnswer | RunningCall | None:
        if not self._ready:
            await self._open_file()
        unwritten = self._unwritten.get(key)
        if unwritten is not None and unwritten.at >= time.time() - self._ttl_s:
            return unwritten.answer()
        if key in self._blocks.places:
            async with asyncio.timeout(READ_TIMEOUT_S):
                found = await self._thread(self._blocks.find, key)
            if found:
                return found
        if key in self._claims:
            return RunningCall(self._claims[key])
        self._claims[key] = digest
        return None

    @override
    async def record(self, key: bytes, answer: RecordedAnswer) -> None:
        if not self._ready:
            await self._open_file()
        if key not in self._unwritten:
            stored = StoredAnswer(key, answer.digest, answer.stream, time.time(), answer.body)
            self._log.append(stored)
            self._unwritten[key] = stored
        self._claims.pop(key, None)

    @override
    async def release(self, key: bytes) -> None:
        self._claims.pop(key, None)

    @override
    async def close(self) -> None:
        self._claims.clear()
        if self._evicting is not None:
            self._evicting.cancel()
        await self._log.close()
        await self._thread(self._blocks.close)
        await self._thread.close()

    async def _open_file(self) -> None:
        """Read the keys of the file and of the last process's write-ahead log."""
        await self._thread(self._blocks.open)
        await self._thread(self._log.recover)
        self._ready = True

    def _on_written(self, answers: Sequence[StoredAnswer]) -> None:
        for stored in answers:
            if self._unwritten.get(stored.key) is stored:
                del self._unwritten[stored.key]

    async def _evict(self) -> None:
        while True:
            await asyncio.sleep(EVICT_EVERY_S)
            with contextlib.suppress(StoreUnavailable):  # the next write reports it
                await self._thread(self._blocks.evict)
