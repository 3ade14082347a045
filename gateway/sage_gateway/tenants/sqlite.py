"""Tenants in a SQLite file: what one gateway keeps over a crash of its process.

Accounts live in memory (:mod:`books`), made of the file when it is opened: so to hold the cost of a
call takes no trip to the disk, and holds die with the process. Only charges are written, by one
thread that commits what has gathered since its last commit.
"""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sage_flink.common import StoreUnavailable
from sage_gateway.tenants.books import Books
from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.limits import Refusal, period
from sage_gateway.tenants.port import Call, Charge, Held
from sage_gateway.tenants.rows import Entry, Rows

log = logging.getLogger("sage.gateway")

JOBS_MAX = 128
FOLD_EVERY_S = 30.0


@dataclass(slots=True)
class _Job:
    """One thing for the thread: charges to write, or ``work`` whose result is wanted."""

    done: "asyncio.Future[Any]"
    entries: Sequence[Entry] = ()
    work: Callable[[], Any] | None = None


class SqliteStore:
    """The file at ``path``; one process at a time."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._rows = Rows(path)
        self._clock = clock
        self._books = Books(clock)
        self._unrecorded: dict[bytes, Charge] = {}
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._read = False

    async def open(self) -> None:
        """Start the thread and read what is there.

        Raises:
            StoreUnavailable: the file cannot be had now; later calls try again.
        """
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="tenants", daemon=True)
        self._thread.start()
        await self._ready()

    async def keys(self) -> tuple[Key, ...]:
        """As the port has it."""
        await self._ready()
        return tuple(self._books.keys.values())

    async def keep(self, key: Key) -> None:
        """As the port has it."""
        await self._ready()
        await self._do(lambda: self._rows.keep(key))
        self._books.keys[key.id] = key

    async def drop(self, key_id: str) -> bool:
        """As the port has it."""
        await self._ready()
        there = await self._do(lambda: self._rows.drop(key_id))
        self._books.keys.pop(key_id, None)
        return bool(there)

    async def admit(self, call: Call) -> Held | Refusal:
        """As the port has it; waits only for the first read, or to take a charge back."""
        if not self._read:
            await self._ready()
        if lost := self._unrecorded.pop(call.once, None):
            try:
                await self._take_back(call.once, lost)
            except StoreUnavailable:
                self._unrecorded[call.once] = lost
                raise
        return self._books.admit(call) or Held(call, "")

    async def settle(self, held: Held, charge: Charge | None) -> None:
        """As the port has it; the hold ends when the charge is written, awaited or not."""
        if charge is None:
            self._books.end(held.call, 0)
            return
        entry = Entry(charge, held.call.once)

        def written(done: "asyncio.Future[Any]") -> None:
            failed = done.exception() is not None
            self._books.end(held.call, 0 if failed else charge.tokens)
            if not failed:
                self._books.charge([charge])

        try:
            job = self._put(entries=[entry])
        except StoreUnavailable:
            self._books.end(held.call, 0)
            raise
        job.add_done_callback(written)
        await asyncio.shield(job)

    async def add(self, charges: Sequence[Charge]) -> None:
        """As the port has it."""
        await self._ready()
        await self._put(entries=[Entry(charge) for charge in charges])
        self._books.charge(charges)

    async def usage(self, first_day: int, last_day: int) -> tuple[Charge, ...]:
        """As the port has it."""
        await self._ready()
        found: tuple[Charge, ...] = await self._do(lambda: self._rows.used(first_day, last_day))
        return found

    async def close(self) -> None:
        """Write what waits and close the file."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    async def _ready(self) -> None:
        """Read the file, unless it was read; nothing is held or charged before that."""
        if self._read:
            return
        first = period(self._clock())[1] * 100
        keys, used, lost = await self._do(
            lambda: (self._rows.keys(), self._rows.used(first, first + 99), self._rows.unrecorded())
        )
        if self._read:  # by another one that waited for the same
            return
        self._books.keys.update((key.id, key) for key in keys)
        self._books.load(used)
        self._unrecorded = lost
        self._read = True

    async def _take_back(self, once: bytes, lost: Charge) -> None:
        entry = Entry(_negative(lost), once)
        await self._put(entries=[entry])
        self._books.charge([entry.charge])

    async def _do(self, work: Callable[[], Any]) -> Any:
        return await self._put(work=work)

    def _put(
        self, *, entries: Sequence[Entry] = (), work: Callable[[], Any] | None = None
    ) -> "asyncio.Future[Any]":
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            raise StoreUnavailable(f"{self._rows.path}: not open")
        job = _Job(self._loop.create_future(), entries, work)
        self._jobs.put(job)
        return job.done

    # From here on: the thread.

    def _run(self) -> None:
        fold_at = time.monotonic() + FOLD_EVERY_S
        going = True
        while going:
            batch, going = self._gathered()
            charged = [job for job in batch if job.entries]
            entries = [entry for job in charged for entry in job.entries]
            self._try(charged, partial(self._rows.insert, entries))
            for job in batch:
                if job.work is not None:
                    self._try([job], job.work)
            if time.monotonic() > fold_at:
                fold_at = time.monotonic() + FOLD_EVERY_S
                self._try([], self._rows.fold)
        self._rows.close()

    def _try(self, jobs: Sequence[_Job], work: Callable[[], Any]) -> None:
        """Do it and tell the jobs; a file that failed is opened anew by the next."""
        try:
            self._tell(_settle, jobs, work())
        except Exception as error:  # of whatever kind: who waits must be told
            with contextlib.suppress(sqlite3.Error):
                self._rows.close()
            if not jobs:
                log.warning("tenants: %s: %s", self._rows.path, error)
            self._tell(_refuse, jobs, StoreUnavailable(f"{self._rows.path}: {error}"))

    def _gathered(self) -> tuple[list[_Job], bool]:
        """What waits, at least one job, or none after a pause; False when that was the last."""
        batch: list[_Job] = []
        with contextlib.suppress(queue.Empty):
            while len(batch) < JOBS_MAX:
                wait = not batch
                job = self._jobs.get(wait, timeout=FOLD_EVERY_S if wait else None)
                if job is None:
                    return batch, False
                batch.append(job)
        return batch, True

    def _tell(self, how: Callable[..., None], *news: object) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(how, *news)


def _negative(charge: Charge) -> Charge:
    return replace(
        charge,
        requests=-charge.requests,
        prompt_tokens=-charge.prompt_tokens,
        completion_tokens=-charge.completion_tokens,
    )


def _settle(batch: Sequence[_Job], found: Any) -> None:
    for job in batch:
        if not job.done.done():
            job.done.set_result(found)


def _refuse(batch: Sequence[_Job], why: StoreUnavailable) -> None:
    for job in batch:
        if not job.done.done():
            job.done.set_exception(why)
