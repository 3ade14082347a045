"""The tenants' SQLite file: a segment goes in once, names stay a while, old layouts are read."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sage_gateway.tenants.sqlite_tables import UNRECORDED_S, Entry, Rows
from sage_gateway.tenants.store_protocol import Charge, Row

DAY = 20261124
ROW = Row(DAY, "acme", "key-1", "talk", "")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tenants.sqlite"


@pytest.fixture
def rows(path: Path) -> Iterator[Rows]:
    opened = Rows(path)
    yield opened
    opened.close()


def entry(name: bytes = b"", *, at: float = 100.0, times: int = 1) -> Entry:
    return Entry(Charge(ROW, times, 3 * times, 2 * times), name, at)


def test_a_segment_that_is_written_again_is_counted_once(rows: Rows) -> None:
    for _ in range(2):
        rows.insert(1, [entry(), entry()])

    assert rows.used(DAY, DAY) == (Charge(ROW, 2, 6, 4),)
    assert rows.written() == 1


def test_a_charge_that_was_taken_back_is_neither_a_sum_nor_a_name(rows: Rows) -> None:
    rows.insert(1, [entry(b"one"), entry(b"two")])
    rows.insert(2, [entry(b"one", times=-1)])

    assert rows.used(DAY, DAY) == (Charge(ROW, 1, 3, 2),)
    assert rows.unrecorded() == {b"two": Charge(ROW, 1, 3, 2)}


def test_names_are_kept_for_the_last_moments_only(rows: Rows) -> None:
    rows.insert(1, [entry(b"one", at=100.0)])
    rows.insert(2, [entry(b"two", at=100.0 + UNRECORDED_S)])
    assert sorted(rows.unrecorded()) == [b"one", b"two"]

    rows.insert(3, [entry(at=101.0 + UNRECORDED_S)])

    assert sorted(rows.unrecorded()) == [b"two"]
    assert rows.used(DAY, DAY) == (Charge(ROW, 3, 9, 6),)


def test_what_the_first_layout_held_is_counted_on(rows: Rows, path: Path) -> None:
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

    rows.insert(1, [entry()])

    assert rows.used(DAY, DAY) == (Charge(ROW, 6, 18, 12),)
    assert rows.unrecorded() == {}
