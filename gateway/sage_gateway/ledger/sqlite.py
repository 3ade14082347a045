"""Answers in a SQLite file: what one gateway keeps over a crash of its process.

One thread owns the file (:mod:`rows`) and commits what has gathered since its last commit (group
commit). The event loop reads no file: which keys there are it knows by itself (about 80 bytes
each), so that a new id, the common case, costs no trip to the thread.
"""

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sage_flink.common import StoreUnavailable
from sage_gateway.ledger.port import Recorded, Running
from sage_gateway.ledger.rows import Rows

ROWS_MAX = 128
PENDING_BYTES_MAX = 64 << 20
EVICT_EVERY_S = 1.0

Found = Recorded | None


@dataclass(slots=True)
class _Job:
    """One thing for the thread to do: keep ``answer``, or without one look ``key`` up."""

    key: bytes
    answer: Recorded | None
    done: "asyncio.Future[Found]"


class SqliteStore:
    """The file at ``path``; beyond ``file_bytes_max`` it takes no more, whatever it holds."""

    def __init__(
        self, path: Path, *, ttl_s: float, bytes_max: int, file_bytes_max: int | None = None
    ) -> None:
        file_max = file_bytes_max or 2 * bytes_max + (16 << 20)
        self._rows = Rows(path, ttl_s=ttl_s, bytes_max=bytes_max, file_bytes_max=file_max)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._pending_bytes = 0
        self._claims: dict[bytes, bytes] = {}
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def bytes_held(self) -> int:
        """As the port has it."""
        return self._rows.bytes_held

    @property
    def evicted(self) -> int:
        """As the port has it."""
        return self._rows.evicted

    async def open(self) -> None:
        """Start the thread and read which keys there are.

        Raises:
            StoreUnavailable: the file cannot be had now; later calls try again.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()
        await self._ask(b"", None)

    async def claim(self, key: bytes, digest: bytes) -> Recorded | Running | None:
        """As the port has it; a new key is answered without leaving the loop."""
        if key in self._rows.known and (found := await self._ask(key, None)):
            return found
        if key in self._claims:
            return Running(self._claims[key])
        self._claims[key] = digest
        return None

    async def record(self, key: bytes, answer: Recorded) -> None:
        """As the port has it: on return the kernel has it.

        Raises:
            StoreUnavailable: locked, no room, or too much waits to be written.
        """
        if self._pending_bytes > PENDING_BYTES_MAX:
            raise StoreUnavailable(f"{self._rows.path}: {self._pending_bytes} bytes wait for it")
        self._pending_bytes += len(answer.body)
        try:
            await self._ask(key, answer)
        finally:
            self._pending_bytes -= len(answer.body)
        self._claims.pop(key, None)

    async def release(self, key: bytes) -> None:
        """As the port has it."""
        self._claims.pop(key, None)

    async def close(self) -> None:
        """Write what waits and close the file."""
        self._claims.clear()
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    async def _ask(self, key: bytes, answer: Recorded | None) -> Found:
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            raise StoreUnavailable(f"{self._rows.path}: not open")
        job = _Job(key, answer, self._loop.create_future())
        self._jobs.put(job)
        return await job.done

    # From here on: the thread.

    def _work(self) -> None:
        evict_at = 0.0
        going = True
        while going:
            batch, going = self._gathered()
            try:
                self._do(batch)
                if time.monotonic() > evict_at or self._rows.full:
                    evict_at = time.monotonic() + EVICT_EVERY_S
                    self._rows.evict()
            except (sqlite3.Error, OSError) as error:
                self._rows.failed(error)
                self._tell(_refuse, batch, StoreUnavailable(f"{self._rows.path}: {error}"))
        self._rows.close()

    def _gathered(self) -> tuple[list[_Job], bool]:
        """What waits, at least one job, or none after a pause; False when that was the last."""
        batch: list[_Job] = []
        with contextlib.suppress(queue.Empty):
            while len(batch) < ROWS_MAX:
                wait = not batch
                job = self._jobs.get(wait, timeout=EVICT_EVERY_S if wait else None)
                if job is None:
                    return batch, False
                batch.append(job)
        return batch, True

    def _do(self, batch: Sequence[_Job]) -> None:
        """Keep, then look up: who looks for what is kept in this batch finds it."""
        new = {job.key: job.answer for job in reversed(batch) if job.answer is not None}
        if new:
            self._rows.insert(new)
        found = [None if job.answer else self._rows.find(job.key) for job in batch]
        self._tell(_settle, batch, found)

    def _tell(self, how: Callable[..., None], *news: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(how, *news)


def _settle(batch: Sequence[_Job], found: Sequence[Found]) -> None:
    for job, answer in zip(batch, found, strict=True):
        if not job.done.done():
            job.done.set_result(answer)


def _refuse(batch: Sequence[_Job], why: StoreUnavailable) -> None:
    for job in batch:
        if not job.done.done():
            job.done.set_exception(why)
