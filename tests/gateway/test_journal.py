"""The journal: what was appended is written once, whatever dies and whatever is locked."""

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
from sage_gateway.storage.write_ahead_log import Journal


class Database:
    """Takes segments in the order of their numbers, once each, unless it is ``away``."""

    def __init__(self) -> None:
        self.rows: list[str] = []
        self.number = 0
        self.away = False
        self.after_commit: Callable[[], None] = lambda: None

    def write(self, number: int, entries: Sequence[str]) -> None:
        if self.away:
            raise OSError("locked")
        if number > self.number:
            self.rows += entries
            self.number = number
        self.after_commit()


def opened(folder: Path, database: Database, **options: int) -> Journal[str]:
    journal = Journal(folder / "db", str, WorkerThread("test"), database.write, **options)
    journal.recover(lambda: database.number)
    return journal


def killed(journal: Journal[str]) -> None:
    """What the kernel does when its process dies."""
    assert journal._lock is not None
    os.close(journal._lock)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal-*"))


async def test_what_was_appended_is_written_soon_and_the_files_go(tmp_path: Path) -> None:
    database, told = Database(), asyncio.Event()
    journal = Journal(
        tmp_path / "db", str, WorkerThread("test"), database.write, lambda entries: told.set()
    )

    journal.append("a")
    journal.append("b")
    assert database.rows == []
    await told.wait()

    assert database.rows == ["a", "b"]
    assert journal.bytes_waiting == 0
    assert files(tmp_path) == []
    await journal.close()


async def test_the_next_process_writes_what_the_last_one_appended(tmp_path: Path) -> None:
    database = Database()
    first = opened(tmp_path, database)
    first.append("a")
    killed(first)
    opened(tmp_path, database)

    assert database.rows == ["a"]
    assert files(tmp_path) == []


async def test_a_second_process_beside_the_first_takes_nothing_from_it(tmp_path: Path) -> None:
    database = Database()
    first = opened(tmp_path, database)
    first.append("a")
    with pytest.raises(OSError, match="another gateway that runs"):
        opened(tmp_path, database)
    await first.close()
    second = opened(tmp_path, database)
    second.append("b")
    await second.flush()

    assert database.rows == ["a", "b"]


async def test_a_segment_that_was_written_but_not_removed_is_not_written_again(
    tmp_path: Path,
) -> None:
    database = Database()
    journal = opened(tmp_path, database)
    journal.append("a")

    def dies() -> None:
        raise OSError("the process died here")

    database.after_commit = dies
    with pytest.raises(StoreUnavailable):
        await journal.flush()
    database.after_commit = lambda: None
    killed(journal)
    again = opened(tmp_path, database)
    again.append("b")
    await again.flush()

    assert database.rows == ["a", "b"]


async def test_numbers_go_on_where_the_database_is_though_no_file_is_left(tmp_path: Path) -> None:
    database = Database()
    for text in "abc":
        journal = opened(tmp_path, database)
        journal.append(text)
        await journal.close()

    assert database.rows == ["a", "b", "c"]


async def test_while_the_database_is_away_entries_wait_in_order(tmp_path: Path) -> None:
    database = Database()
    database.away = True
    journal = opened(tmp_path, database)
    for n in range(3):
        journal.append(str(n))
        with pytest.raises(StoreUnavailable, match="locked"):
            await journal.flush()
    database.away = False
    await journal.flush()

    assert database.rows == ["0", "1", "2"]
    assert journal.bytes_waiting == 0


async def test_more_than_may_wait_is_refused_and_not_written(tmp_path: Path) -> None:
    database = Database()
    journal = opened(tmp_path, database, bytes_max=100)
    journal.append("a" * 50)
    with pytest.raises(StoreUnavailable, match="wait to be written"):
        journal.append("b" * 50)
    await journal.flush()
    journal.append("c" * 50)
    await journal.flush()

    assert database.rows == ["a" * 50, "c" * 50]


async def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    journal = opened(folder, Database())
    shutil.rmtree(folder)

    with pytest.raises(StoreUnavailable, match="No such file"):
        journal.append("a")


async def test_an_entry_of_another_version_is_left_for_a_person(tmp_path: Path) -> None:
    old = Journal(tmp_path / "db", int, WorkerThread("test"), lambda number, entries: None)
    old.append(5)

    with pytest.raises(OSError, match="move it away"):
        opened(tmp_path, Database())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(), min_size=1, max_size=20), st.floats(0, 1), st.binary(max_size=20))
def test_a_torn_end_costs_no_whole_entry(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], part: float, rubbish: bytes
) -> None:
    folder, database = tmp_path_factory.mktemp("torn"), Database()

    async def torn() -> list[str]:
        journal = opened(folder, database)
        sizes = []
        for text in texts:
            journal.append(text)
            sizes.append(journal.bytes_waiting)
        (file,) = files(folder)
        cut = int(part * sizes[-1])
        os.truncate(file, cut)
        with file.open("ab") as end:
            end.write(rubbish)
        killed(journal)
        opened(folder, database)
        return [text for text, size in zip(texts, sizes, strict=True) if size <= cut]

    assert asyncio.run(torn()) == database.rows
