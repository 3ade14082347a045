"""The write-ahead log: each entry reaches the database once, through crashes and locked files."""

import asyncio
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_flink.common import StoreUnavailable
from sage_gateway.runtime.worker_thread import WorkerThread
from sage_gateway.storage.write_ahead_log import WriteAheadLog


class Database:
    """Accepts segments in the order of their numbers, once each, unless it is ``unavailable``."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.number = 0
        self.unavailable = False
        self.after_commit: Callable[[], None] = lambda: None

    def write(self, number: int, entries: Sequence[str]) -> None:
        if self.unavailable:
            raise OSError("locked")
        if number > self.number:
            self.rows += entries
            self.number = number
        self.after_commit()


def open_log(folder: Path, database: Database, **options: int) -> WriteAheadLog[str]:
    log = WriteAheadLog(folder / "db", str, WorkerThread("test"), database.write, **options)
    log.recover(lambda: database.number)
    return log


def kill(log: WriteAheadLog[str]) -> None:
    """Release its lock, as the kernel does when the process dies."""
    assert log._lock is not None
    os.close(log._lock)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal-*"))


async def test_entries_are_written_soon_and_their_segments_deleted(tmp_path: Path) -> None:
    database, written = Database(), asyncio.Event()
    log = WriteAheadLog(
        tmp_path / "db", str, WorkerThread("test"), database.write, lambda entries: written.set()
    )

    log.append("a")
    log.append("b")
    assert database.rows == []
    await written.wait()

    assert database.rows == ["a", "b"]
    assert log.bytes_waiting == 0
    assert files(tmp_path) == []
    await log.close()


async def test_the_next_process_writes_the_entries_of_a_killed_one(tmp_path: Path) -> None:
    database = Database()
    first = open_log(tmp_path, database)
    first.append("a")
    kill(first)
    open_log(tmp_path, database)

    assert database.rows == ["a"]
    assert files(tmp_path) == []


async def test_a_second_process_is_refused_while_the_first_one_runs(tmp_path: Path) -> None:
    database = Database()
    first = open_log(tmp_path, database)
    first.append("a")
    with pytest.raises(OSError, match="another gateway that runs"):
        open_log(tmp_path, database)
    await first.close()
    second = open_log(tmp_path, database)
    second.append("b")
    await second.flush()

    assert database.rows == ["a", "b"]


async def test_a_segment_that_was_written_but_not_deleted_is_not_written_twice(
    tmp_path: Path,
) -> None:
    database = Database()
    log = open_log(tmp_path, database)
    log.append("a")

    def dies() -> None:
        raise OSError("the process died here")

    database.after_commit = dies
    with pytest.raises(StoreUnavailable):
        await log.flush()
    database.after_commit = lambda: None
    kill(log)
    again = open_log(tmp_path, database)
    again.append("b")
    await again.flush()

    assert database.rows == ["a", "b"]


async def test_segment_numbers_continue_after_those_of_the_database(tmp_path: Path) -> None:
    database = Database()
    for text in "abc":
        log = open_log(tmp_path, database)
        log.append(text)
        await log.close()

    assert database.rows == ["a", "b", "c"]


async def test_entries_wait_in_order_while_the_database_is_unavailable(tmp_path: Path) -> None:
    database = Database()
    database.unavailable = True
    log = open_log(tmp_path, database)
    for n in range(3):
        log.append(str(n))
        with pytest.raises(StoreUnavailable, match="locked"):
            await log.flush()
    database.unavailable = False
    await log.flush()

    assert database.rows == ["0", "1", "2"]
    assert log.bytes_waiting == 0


async def test_an_entry_beyond_the_size_bound_is_refused_and_not_written(tmp_path: Path) -> None:
    database = Database()
    log = open_log(tmp_path, database, bytes_max=100)
    log.append("a" * 50)
    with pytest.raises(StoreUnavailable, match="wait to be written"):
        log.append("b" * 50)
    await log.flush()
    log.append("c" * 50)
    await log.flush()

    assert database.rows == ["a" * 50, "c" * 50]


async def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "missing"
    folder.mkdir()
    log = open_log(folder, Database())
    shutil.rmtree(folder)

    with pytest.raises(StoreUnavailable, match="No such file"):
        log.append("a")


async def test_an_entry_of_another_version_is_an_error_and_stays(tmp_path: Path) -> None:
    old = WriteAheadLog(tmp_path / "db", int, WorkerThread("test"), lambda number, entries: None)
    old.append(5)

    with pytest.raises(OSError, match="move it away"):
        open_log(tmp_path, Database())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=20), st.floats(0, 1), st.binary(max_size=20))
def test_a_torn_end_loses_no_complete_entry(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], part: float, rubbish: bytes
) -> None:
    folder, database = tmp_path_factory.mktemp("torn"), Database()

    async def recover_torn_log() -> list[str]:
        log = open_log(folder, database)
        sizes = []
        for text in texts:
            log.append(text)
            sizes.append(log.bytes_waiting)
        (file,) = files(folder)
        cut = int(part * sizes[-1])
        os.truncate(file, cut)
        with file.open("ab") as end:
            end.write(rubbish)
        kill(log)
        open_log(folder, database)
        return [text for text, size in zip(texts, sizes, strict=True) if size <= cut]

    assert asyncio.run(recover_torn_log()) == database.rows
