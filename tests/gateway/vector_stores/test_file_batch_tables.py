"""The tables of batches of files: all or none, counted, cancelled, forgotten."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from stored_files import add_store, file_of, finished, pending_deletes

from sage_gateway.storage.exclusive_database import ListPage
from sage_gateway.vector_stores import file_batch_tables
from sage_gateway.vector_stores.file_batch_tables import (
    add_batch,
    batch_status,
    cancel_batch,
    find_batch,
)
from sage_gateway.vector_stores.schema import FileStatus
from sage_gateway.vector_stores.store_tables import StoreTables

BATCH = "vsfb_1"


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[StoreTables]:
    tables = StoreTables(tmp_path / "stores.sqlite")
    add_store(tables)
    yield tables
    tables.close()


def add_files(tables: StoreTables, count: int, batch_id: str = BATCH) -> None:
    files = [file_of(f"file-{n}", version=batch_id) for n in range(count)]
    assert add_batch(tables, batch_id, files)


def counts(tables: StoreTables, batch_id: str = BATCH) -> dict[str, int]:
    found = find_batch(tables, "vs_1", batch_id)
    assert found is not None
    return {name: n for name, n in found.file_counts.model_dump().items() if n}


def test_a_batch_has_the_counts_of_its_files(tables: StoreTables) -> None:
    tables.add_file(file_of("other"))
    add_files(tables, 3)
    tables.finish_file(finished(file_of("file-0", version=BATCH), FileStatus.COMPLETED))
    tables.finish_file(finished(file_of("file-1", version=BATCH), FileStatus.FAILED))

    assert counts(tables) == {"in_progress": 1, "completed": 1, "failed": 1, "total": 3}
    page = tables.files("vs_1", None, ListPage(None, 2), batch_id=BATCH)
    assert [file.id for file in page] == ["file-2", "file-1", "file-0"]
    failed = tables.files("vs_1", FileStatus.FAILED, ListPage(None, 9), batch_id=BATCH)
    assert [file.id for file in failed] == ["file-1"]


def test_a_batch_without_its_store_adds_no_file(tables: StoreTables) -> None:
    files = [replace(file_of(version=BATCH), tenant="umbrella")]

    assert not add_batch(tables, BATCH, files)
    assert tables.open_files() == []
    assert find_batch(tables, "vs_1", BATCH) is None


def test_a_file_that_is_attached_again_or_detached_leaves_its_batch(tables: StoreTables) -> None:
    add_files(tables, 3)

    tables.add_file(file_of("file-0", version="alone"))
    tables.delete_file("vs_1", "file-1")

    assert counts(tables) == {"in_progress": 1, "total": 1}


def test_cancelling_ends_the_files_in_progress_and_deletes_their_rows(tables: StoreTables) -> None:
    add_files(tables, 3)
    done = finished(file_of("file-0", version=BATCH), FileStatus.COMPLETED)
    tables.finish_file(done)

    cancelled = cancel_batch(tables, "vs_1", BATCH)
    tables.finish_file(finished(file_of("file-1", version=BATCH), FileStatus.COMPLETED))  # too late

    assert [owned.file.id for owned in cancelled] == ["file-1", "file-2"]
    assert counts(tables) == {"completed": 1, "cancelled": 2, "total": 3}
    assert pending_deletes(tables) == [
        ("vs_1", "file-0", BATCH),
        ("vs_1", "file-1", ""),
        ("vs_1", "file-2", ""),
    ]
    found = find_batch(tables, "vs_1", BATCH)
    assert found is not None
    assert found.status is FileStatus.CANCELLED
    assert cancel_batch(tables, "vs_1", BATCH) == []


@pytest.mark.parametrize(
    ("files", "is_cancelled", "status"),
    [
        ({"in_progress": 1, "failed": 1}, False, "in_progress"),
        ({"completed": 1, "failed": 1}, False, "completed"),
        ({"failed": 2}, False, "failed"),
        ({}, False, "completed"),
        ({"cancelled": 1, "completed": 1}, True, "cancelled"),
    ],
)
def test_the_status_of_a_batch_follows_from_its_files(
    files: dict[str, int], is_cancelled: bool, status: str
) -> None:
    assert batch_status(Counter(files), is_cancelled=is_cancelled) == status


def test_the_oldest_batches_that_have_ended_are_forgotten(
    tables: StoreTables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_batch_tables, "BATCHES_KEPT", 2)
    for n in range(4):
        add_batch(
            tables, f"vsfb_{n}", [file_of("first" if n == 0 else "again", version=f"vsfb_{n}")]
        )

    kept = [n for n in range(4) if find_batch(tables, "vs_1", f"vsfb_{n}")]

    assert kept == [0, 2, 3]


def test_a_deleted_store_has_no_batches(tables: StoreTables) -> None:
    add_files(tables, 1)

    tables.delete_store("acme", "vs_1")

    assert find_batch(tables, "vs_1", BATCH) is None
