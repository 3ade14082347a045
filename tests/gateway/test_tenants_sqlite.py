"""The SQLite file of the tenants' store: segments, named charges, migration."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sage_gateway.tenants.sqlite_tables import REVERSIBLE_S, ChargeEntry, UsageTables
from sage_gateway.tenants.store_protocol import Charge, UsageKey

DAY = 20261124
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
