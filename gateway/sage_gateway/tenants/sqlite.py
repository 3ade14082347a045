"""Tenants in a SQLite file: what one gateway keeps over a crash of its process.

Accounts live in memory (:mod:`books`), made of the file when it is opened: so to hold the cost of a
call takes no trip to the disk, and holds die with the process. Only charges are written: a charge
is safe once the journal has it (:mod:`sage_gateway.storage.write_ahead_log`), and in the file
soon after.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from sage_gateway.runtime.worker_thread import WorkerThread
from sage_gateway.storage.write_ahead_log import Journal
from sage_gateway.tenants.account_balances import Books
from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.limits import Refusal, period
from sage_gateway.tenants.sqlite_tables import Entry, Rows
from sage_gateway.tenants.store_protocol import Call, Charge, Held


class SqliteStore:
    """The file at ``path``; one process at a time."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._rows = Rows(path)
        self._clock = clock
        self._books = Books(clock)
        self._unrecorded: dict[bytes, Charge] = {}
        self._thread = WorkerThread("tenants", self._failed)
        self._journal = Journal(path, Entry, self._thread, self._rows.insert)
        self._read = False

    async def open(self) -> None:
        """Read what is there, in the last process's journal as well.

        Raises:
            StoreUnavailable: the file cannot be had now; later calls try again.
        """
        await self._ready()

    async def keys(self) -> tuple[Key, ...]:
        """As the port has it."""
        await self._ready()
        return tuple(self._books.keys.values())

    async def keep(self, key: Key) -> None:
        """As the port has it."""
        await self._ready()
        await self._thread(self._rows.keep, key)
        self._books.keys[key.id] = key

    async def drop(self, key_id: str) -> bool:
        """As the port has it."""
        await self._ready()
        there = await self._thread(self._rows.drop, key_id)
        self._books.keys.pop(key_id, None)
        return there

    async def admit(self, call: Call) -> Held | Refusal:
        """As the port has it; waits only for the first read."""
        if not self._read:
            await self._ready()
        if lost := self._unrecorded.get(call.once):
            self._charge(_negative(lost), call.once)
            del self._unrecorded[call.once]
        return self._books.admit(call) or Held(call, "")

    async def settle(self, held: Held, charge: Charge | None) -> None:
        """As the port has it, without waiting for anything."""
        paid = 0
        try:
            if charge is not None:
                self._charge(charge, held.call.once)
                paid = charge.tokens
        finally:
            self._books.end(held.call, paid)

    async def add(self, charges: Sequence[Charge]) -> None:
        """As the port has it."""
        await self._ready()
        for charge in charges:
            self._charge(charge)

    async def usage(self, first_day: int, last_day: int) -> tuple[Charge, ...]:
        """As the port has it."""
        await self._ready()
        await self._journal.flush()
        return await self._thread(self._rows.used, first_day, last_day)

    async def close(self) -> None:
        """Write what waits and close the file."""
        await self._journal.close()
        await self._thread(self._rows.close)
        await self._thread.close()

    def _charge(self, charge: Charge, once: bytes = b"") -> None:
        self._journal.append(Entry(charge, once, time.time()))
        self._books.charge([charge])

    async def _ready(self) -> None:
        """Read the file, unless it was read; nothing is held or charged before that."""
        if not self._read:
            first = period(self._clock())[1] * 100
            found = await self._thread(self._recover, first, first + 99)
            if not self._read:  # not by another one that waited for the same
                keys, used, self._unrecorded = found
                self._books.keys.update((key.id, key) for key in keys)
                self._books.load(used)
                self._read = True

    def _recover(
        self, first_day: int, last_day: int
    ) -> tuple[tuple[Key, ...], tuple[Charge, ...], dict[bytes, Charge]]:
        self._journal.recover(self._rows.written)
        rows = self._rows
        return rows.keys(), rows.used(first_day, last_day), rows.unrecorded()

    def _failed(self, error: Exception) -> None:
        with suppress(sqlite3.Error):  # opened anew by the next
            self._rows.close()


def _negative(charge: Charge) -> Charge:
    return replace(
        charge,
        requests=-charge.requests,
        prompt_tokens=-charge.prompt_tokens,
        completion_tokens=-charge.completion_tokens,
    )
