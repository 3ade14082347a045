"""The ledger's SQLite file: answers in blocks, found each, dropped by blocks, the oldest first."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_gateway.idempotency.sqlite_tables import BLOCK_SHARE, Kept, Rows
from sage_gateway.idempotency.store_protocol import ROW_BYTES, Recorded

BYTES_MAX = 1 << 20


def opened(path: Path, *, ttl_s: float = 60.0, bytes_max: int = BYTES_MAX) -> Rows:
    return Rows(path, ttl_s=ttl_s, bytes_max=bytes_max, file_bytes_max=64 << 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def rows(path: Path) -> Iterator[Rows]:
    found = opened(path)
    yield found
    found.close()


def kept(n: int, body: bytes = b"{}", *, age_s: float = 0.0) -> Kept:
    return Kept(b"key %d" % n, b"digest", False, time.time() - age_s, body)


def recorded(body: bytes = b"{}") -> Recorded:
    return Recorded(b"digest", False, body)


def blocks(path: Path) -> int:
    with closing(sqlite3.connect(path)) as other:
        count: int = other.execute("SELECT count(*) FROM blocks").fetchone()[0]
        return count


def test_many_small_answers_are_few_blocks_and_each_is_found_again(rows: Rows, path: Path) -> None:
    rows.insert(1, [kept(n, b"body %d" % n) for n in range(500)])
    rows.close()

    again = opened(path)
    assert all(again.find(b"key %d" % n) is None for n in range(3)), "not open, nothing is known"
    again.open()
    assert [again.find(b"key %d" % n) for n in range(500)] == [
        recorded(b"body %d" % n) for n in range(500)
    ]
    assert again.bytes_held == rows.bytes_held
    again.close()
    assert blocks(path) < 10


def test_the_first_answer_of_a_key_stays_and_a_segment_twice_changes_nothing(rows: Rows) -> None:
    rows.insert(1, [kept(1, b"first"), kept(1, b"second")])
    rows.insert(1, [kept(1, b"first"), kept(1, b"second")])

    assert rows.find(b"key 1") == recorded(b"first")
    assert rows.bytes_held == 5 + ROW_BYTES


def test_what_is_recorded_anew_outlives_the_block_of_the_old_one(tmp_path: Path) -> None:
    rows = opened(tmp_path / "l", ttl_s=10.0)
    rows.insert(1, [kept(1, b"old", age_s=20.0), kept(2)])
    assert rows.find(b"key 1") is None
    rows.insert(2, [kept(1, b"new")])
    rows.insert(3, [kept(3, b"old", age_s=20.0)])

    rows.evict()

    assert rows.find(b"key 1") == recorded(b"new")
    assert (rows.find(b"key 2"), rows.find(b"key 3")) == (recorded(), None)
    assert rows.evicted == 2
    rows.close()


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 30_000), min_size=1, max_size=120))
def test_the_oldest_go_by_blocks_and_little_more_than_has_to(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    rows = opened(tmp_path_factory.mktemp("rows") / "l")
    entries = [kept(n, b"x" * size) for n, size in enumerate(sizes)]
    for at in range(0, len(entries), 10):
        rows.insert(at, entries[at : at + 10])

    found = [rows.find(entry.key) is not None for entry in entries]
    held = sum(len(e.body) + ROW_BYTES for e, there in zip(entries, found, strict=True) if there)
    whole = sum(size + ROW_BYTES for size in sizes)
    rows.close()

    assert found == sorted(found), "the oldest went first"
    assert held == rows.bytes_held <= BYTES_MAX
    assert held >= min(whole, BYTES_MAX - BYTES_MAX // BLOCK_SHARE - 30_000 - ROW_BYTES)
    assert rows.evicted == found.count(False)


def test_a_block_that_is_none_is_a_broken_file_and_set_aside(rows: Rows, path: Path) -> None:
    rows.insert(1, [kept(1)])
    rows.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE blocks SET answers = x'c1'")

    rows.open()

    assert rows.known == {}
    assert path.with_name("ledger.sqlite.corrupt").exists()
