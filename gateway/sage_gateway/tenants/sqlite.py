"""Tenants' store in a SQLite file: what one gateway keeps through a crash.

Account balances live in memory (:mod:`sage_gateway.tenants.account_balances`), computed from the
file when it is opened. So a hold needs no trip to the disk, and holds end with the process. Only
charges are written: a charge is safe once the write-ahead log has it
(:mod:`sage_gateway.storage.write_ahead_log`), and the file has it soon after. The first minutes
after a crash may reverse a charge of the last moments before it; an orderly close ends that.
"""

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace
from typing_extensions import override

from sage_flink.common import StoreUnavailable
from sage_gateway.runtime.worker_thread import WorkerThread
from sage_gateway.storage.write_ahead_log import WriteAheadLog
from sage_gateway.tenants.account_balances import AccountBalances
from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.limits import LimitRefusal, period
from sage_gateway.tenants.sqlite_tables import ChargeEntry, UsageTables
from sage_gateway.tenants.store_protocol import Charge, Hold, MeteredCall, TenantStore

#: The longest time from a restart after a crash until a client repeats the call that was cut off.
REPEAT_S = 600.0


class SqliteTenantStore(TenantStore):
    """The file at ``path``; one process at a time."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._tables = UsageTables(path)
        self._clock = clock
        self._balances = AccountBalances(clock)
        #: Charges by the process that crashed; reversed until the time below, of ``clock``.
        self._reversible: dict[bytes, Charge] = {}
        self._reversible_until_s = 0.0
        self._thread = WorkerThread("tenants", self._on_error)
        self._log = WriteAheadLog(path, ChargeEntry, self._thread, self._tables.insert)
        self._loaded = False

    @override
    async def open(self) -> None:
        await self._load()

    @override
    async def keys(self) -> tuple[Key, ...]:
        await self._load()
        return tuple(self._balances.keys.values())

    @override
    async def add_key(self, key: Key) -> None:
        await self._load()
        await self._thread(self._tables.add_key, key)
        self._balances.keys[key.id] = key

    @override
    async def delete_key(self, key_id: str) -> bool:
        await self._load()
        existed = await self._thread(self._tables.delete_key, key_id)
        self._balances.keys.pop(key_id, None)
        return existed

    @override
    async def admit(self, call: MeteredCall) -> Hold | LimitRefusal:
        if not self._loaded:
            await self._load()
        if self._reversible:
            self._reverse(call.record_key)
        return self._balances.admit(call) or Hold(call, "")

    @override
    async def settle(self, held: Hold, charge: Charge) -> None:
        tokens = 0
        try:
            self._charge(charge, held.call.record_key)
            tokens = charge.tokens
        finally:
            self.release(held, tokens)

    @override
    def release(self, held: Hold, tokens: int = 0) -> None:
        self._balances.release(held.call, tokens)

    @override
    async def add(self, charges: Sequence[Charge], batch: str = "") -> None:
        await self._load()
        if charges:
            self._charge(charges[0], more=charges[1:])

    @override
    async def usage(self, first_day: int, last_day: int) -> tuple[Charge, ...]:
        await self._load()
        await self._log.flush()
        return await self._thread(self._tables.usage, first_day, last_day)

    @override
    async def close(self) -> None:
        if self._loaded:
            with suppress(StoreUnavailable):  # the charges stay reversible, as after a crash
                await self._log.flush()
                await self._thread(self._tables.delete_names)
        await self._log.close()
        await self._thread(self._tables.close)
        await self._thread.close()

    def _charge(self, charge: Charge, record_key: bytes = b"", more: Sequence[Charge] = ()) -> None:
        self._log.append(ChargeEntry(charge, record_key, time.time(), tuple(more)))
        self._balances.charge([charge, *more])

    def _reverse(self, record_key: bytes) -> None:
        """Reverse the charge by the process that crashed, if it made one for this call."""
        if self._clock() >= self._reversible_until_s:
            self._reversible.clear()
        elif charge := self._reversible.get(record_key):
            self._charge(_negative(charge), record_key)
            del self._reversible[record_key]

    async def _load(self) -> None:
        """Read the file and the write-ahead log of the last process, once, before any charge."""
        if not self._loaded:
            first = period(self._clock())[1] * 100
            found = await self._thread(self._recover, first, first + 99)
            if not self._loaded:  # by a concurrent call
                keys, usage, self._reversible = found
                self._balances.keys.update((key.id, key) for key in keys)
                self._reversible_until_s = self._clock() + REPEAT_S
                self._balances.load(usage)
                self._loaded = True

    def _recover(
        self, first_day: int, last_day: int
    ) -> tuple[tuple[Key, ...], tuple[Charge, ...], dict[bytes, Charge]]:
        self._log.recover(self._tables.last_segment)
        tables = self._tables
        return tables.keys(), tables.usage(first_day, last_day), tables.reversible_charges()

    def _on_error(self, error: Exception) -> None:
        with suppress(sqlite3.Error):  # the next call opens it again
            self._tables.close()


def _negative(charge: Charge) -> Charge:
    return replace(
        charge,
        requests=-charge.requests,
        prompt_tokens=-charge.prompt_tokens,
        completion_tokens=-charge.completion_tokens,
    )
