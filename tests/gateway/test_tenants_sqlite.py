"""The SQLite file of the tenants' store: segments, named charges, migration, batches."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sage_flink.common import StoreUnavailable
from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.tenants.limits import Cost
from sage_gateway.tenants.sqlite import REPEAT_S, SqliteTenantStore
from sage_gateway.tenants.sqlite_tables import REVERSIBLE_S, ChargeEntry, UsageTables
from sage_gateway.tenants.store_protocol import Charge, Hold, MeteredCall, UsageKey

DAY = 20261124
NOON_S = 1_795_521_600.0  # of DAY
ROW = UsageKey(DAY, "acme", "key-1", "talk", "")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tenants.sqlite"


@pytest.fixture
def tables(path: Path) -> Iterator[UsageTables]:
    opened = UsageTables(path)
    yield opened
    opened.close()


def entry(name: bytes = b"", *, at: float = 100.0, times: int = 1) -> ChargeEntry:
    return ChargeEntry(Charge(ROW, times, 3 * times, 2 * times), name, at)


def test_a_segment_that_is_inserted_twice_is_counted_once(tables: UsageTables) -> None:
    for _ in range(2):
        tables.insert(1, [entry(), entry()])

    assert tables.usage(DAY, DAY) == (Charge(ROW, 2, 6, 4),)
    assert tables.last_segment() == 1


def test_a_reversed_charge_is_neither_in_the_sums_nor_reversible(tables: UsageTables) -> None:
    tables.insert(1, [entry(b"one"), entry(b"two")])
    tables.insert(2, [entry(b"one", times=-1)])

    assert tables.usage(DAY, DAY) == (Charge(ROW, 1, 3, 2),)
    assert tables.reversible_charges() == {b"two": Charge(ROW, 1, 3, 2)}


def test_charges_are_reversible_for_the_last_moments_only(tables: UsageTables) -> None:
    tables.insert(1, [entry(b"one", at=100.0)])
    tables.insert(2, [entry(b"two", at=100.0 + REVERSIBLE_S)])
    assert sorted(tables.reversible_charges()) == [b"one", b"two"]

    tables.insert(3, [entry(at=101.0 + REVERSIBLE_S)])

    assert sorted(tables.reversible_charges()) == [b"two"]
    assert tables.usage(DAY, DAY) == (Charge(ROW, 3, 9, 6),)


def test_usage_of_the_first_layout_is_migrated(tables: UsageTables, path: Path) -> None:
    types = """day INTEGER NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
        job TEXT NOT NULL, requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
        completion_tokens INTEGER NOT NULL"""
    sums = f"({DAY}, 'acme', 'key-1', 'talk', '', 4, 12, 8)"
    charge = f"(7, 100.0, x'01', {DAY}, 'acme', 'key-1', 'talk', '', 1, 3, 2)"
    with closing(sqlite3.connect(path)) as old:
        old.executescript(f"""
            CREATE TABLE keys (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
            CREATE TABLE charges (id INTEGER PRIMARY KEY, at REAL NOT NULL, once BLOB NOT NULL,
                {types});
            CREATE TABLE used ({types}, PRIMARY KEY (day, tenant, key, model, job)) WITHOUT ROWID;
            INSERT INTO used VALUES {sums};
            INSERT INTO charges VALUES {charge};
            PRAGMA user_version=1;""")

    tables.insert(1, [entry()])

    assert tables.usage(DAY, DAY) == (Charge(ROW, 6, 18, 12),)
    assert tables.reversible_charges() == {}


class Life:
    """One gateway life on the file at ``path``, at the time ``now_s``."""

    def __init__(self, path: Path, now_s: float = NOON_S) -> None:
        self.now_s = now_s
        self.store = SqliteTenantStore(path, clock=lambda: self.now_s)

    async def charge(self, record_key: bytes) -> None:
        limits = LimitsSpec(tokens_per_day=1000)
        call = MeteredCall("key-1", limits, "acme", LimitsSpec(), Cost(5, 9), record_key)
        held = await self.store.admit(call)
        assert isinstance(held, Hold)
        await self.store.settle(held, Charge(ROW, 1, 3, 2))

    async def requests(self) -> int:
        return sum(charge.requests for charge in await self.store.usage(DAY, DAY))

    async def crash(self) -> None:
        await self.store._log.close()  # the kernel has it
        await self.store._thread(self.store._tables.close)
        await self.store._thread.close()


@pytest.mark.parametrize("hours", [0, 25])
async def test_an_orderly_close_ends_the_reversal_of_charges(path: Path, hours: int) -> None:
    first = Life(path)
    await first.charge(b"the call")
    await first.store.close()

    second = Life(path, NOON_S + hours * 3600)
    await second.charge(b"the call")

    assert await second.requests() == 2
    await second.store.close()


@pytest.mark.parametrize(("later_s", "requests"), [(REPEAT_S - 1, 1), (REPEAT_S, 2)])
async def test_a_charge_is_reversed_in_the_first_minutes_after_a_crash_only(
    path: Path, later_s: float, requests: int
) -> None:
    first = Life(path)
    await first.charge(b"the call")
    await first.crash()

    second = Life(path)
    await second.store.open()
    second.now_s += later_s
    await second.charge(b"the call")

    assert await second.requests() == requests
    await second.store.close()


async def test_closing_a_store_that_could_not_be_opened_leaves_the_names_of_the_other_one(
    path: Path,
) -> None:
    running, refused = Life(path), Life(path)
    await running.charge(b"the call")
    await running.store._log.flush()
    with pytest.raises(StoreUnavailable, match="another gateway"):
        await refused.store.open()
    await refused.store.close()
    await running.crash()

    last = Life(path)
    await last.charge(b"the call")

    assert await last.requests() == 1
    await last.store.close()


async def test_charges_are_added_all_or_none(path: Path) -> None:
    store = SqliteTenantStore(path)
    batch = [Charge(UsageKey(DAY, "acme", "key-1", "talk", f"{n}"), 1, 3, 2) for n in range(9)]
    await store.open()
    usual, store._log._bytes_max = store._log._bytes_max, 200

    with pytest.raises(StoreUnavailable, match="do not fit"):
        await store.add(batch)
    assert await store.usage(DAY, DAY) == ()
    store._log._bytes_max = usual
    await store.add(batch)

    assert list(await store.usage(DAY, DAY)) == batch
    await store.close()


async def test_added_charges_and_those_of_an_earlier_version_survive_a_crash(path: Path) -> None:
    store = SqliteTenantStore(path)
    await store.open()
    await store.add([Charge(ROW, 1, 3, 2)] * 4)
    encode, store._log._encode = (
        store._log._encode,
        lambda entry: encode([entry.charge, entry.record_key, entry.at]),
    )
    await store.add([Charge(ROW, 1, 3, 2)])
    store._log._timer.cancel()
    assert store._log._lock is not None
    os.close(store._log._lock)

    again = SqliteTenantStore(path)
    await again.open()

    assert await again.usage(DAY, DAY) == (Charge(ROW, 5, 15, 10),)
    await again.close()
