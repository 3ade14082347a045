"""The SQLite file of the idempotency store: answers in blocks, the oldest block evicted first."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_gateway.idempotency.sqlite_tables import BLOCK_SHARE, AnswerBlocks, StoredAnswer
from sage_gateway.idempotency.store_protocol import ROW_BYTES, RecordedAnswer

BYTES_MAX = 1 << 20


def blocks_at(path: Path, *, ttl_s: float = 60.0, bytes_max: int = BYTES_MAX) -> AnswerBlocks:
    return AnswerBlocks(path, ttl_s=ttl_s, bytes_max=bytes_max, file_bytes_max=64 << 20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def blocks(path: Path) -> Iterator[AnswerBlocks]:
    found = blocks_at(path)
    yield found
    found.close()


def stored_answer(n: int, body: bytes = b"{}", *, age_s: float = 0.0) -> StoredAnswer:
    return StoredAnswer(b"key %d" % n, b"digest", False, time.time() - age_s, body)


def recorded_answer(body: bytes = b"{}") -> RecordedAnswer:
    return RecordedAnswer(b"digest", False, body)


def count_blocks(path: Path) -> int:
    with closing(sqlite3.connect(path)) as other:
        count: int = other.execute("SELECT count(*) FROM blocks").fetchone()[0]
        return count


def test_many_small_answers_share_blocks_and_each_is_found_again(
    blocks: AnswerBlocks, path: Path
) -> None:
    blocks.insert(1, [stored_answer(n, b"body %d" % n) for n in range(500)])
    blocks.close()

    again = blocks_at(path)
    assert all(again.find(b"key %d" % n) is None for n in range(3)), (
        "before it is opened the keys are unknown"
    )
    again.open()
    assert [again.find(b"key %d" % n) for n in range(500)] == [
        recorded_answer(b"body %d" % n) for n in range(500)
    ]
    assert again.bytes_held == blocks.bytes_held
    again.close()
    assert count_blocks(path) < 10


def test_the_first_answer_of_a_key_stays_and_a_repeated_segment_has_no_effect(
    blocks: AnswerBlocks,
) -> None:
    blocks.insert(1, [stored_answer(1, b"first"), stored_answer(1, b"second")])
    blocks.insert(1, [stored_answer(1, b"first"), stored_answer(1, b"second")])

    assert blocks.find(b"key 1") == recorded_answer(b"first")
    assert blocks.bytes_held == 5 + ROW_BYTES


def test_a_newer_answer_survives_the_eviction_of_the_older_one(tmp_path: Path) -> None:
    blocks = blocks_at(tmp_path / "l", ttl_s=10.0)
    blocks.insert(1, [stored_answer(1, b"old", age_s=20.0), stored_answer(2)])
    assert blocks.find(b"key 1") is None
    blocks.insert(2, [stored_answer(1, b"new")])
    blocks.insert(3, [stored_answer(3, b"old", age_s=20.0)])

    blocks.evict()

    assert blocks.find(b"key 1") == recorded_answer(b"new")
    assert (blocks.find(b"key 2"), blocks.find(b"key 3")) == (recorded_answer(), None)
    assert blocks.evictions == 2
    blocks.close()


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(0, 30_000), min_size=1, max_size=120))
def test_the_oldest_blocks_are_evicted_and_little_more_than_needed(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    blocks = blocks_at(tmp_path_factory.mktemp("blocks") / "l")
    entries = [stored_answer(n, b"x" * size) for n, size in enumerate(sizes)]
    for at in range(0, len(entries), 10):
        blocks.insert(at, entries[at : at + 10])

    found = [blocks.find(entry.key) is not None for entry in entries]
    held = sum(len(e.body) + ROW_BYTES for e, there in zip(entries, found, strict=True) if there)
    whole = sum(size + ROW_BYTES for size in sizes)
    blocks.close()

    assert found == sorted(found), "the oldest went first"
    assert held == blocks.bytes_held <= BYTES_MAX
    assert held >= min(whole, BYTES_MAX - BYTES_MAX // BLOCK_SHARE - 30_000 - ROW_BYTES)
    assert blocks.evictions == found.count(False)


def test_a_file_with_an_undecodable_block_is_renamed(blocks: AnswerBlocks, path: Path) -> None:
    blocks.insert(1, [stored_answer(1)])
    blocks.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("UPDATE blocks SET answers = x'c1'")

    blocks.open()

    assert blocks.places == {}
    assert path.with_name("ledger.sqlite.corrupt").exists()
