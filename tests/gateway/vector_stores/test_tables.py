"""The tables of vector stores: scope, counts, and the rows that are to be deleted or changed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from stored_files import add_store, file_of, finished, pending_deletes

from sage_gateway.storage.exclusive_database import ListPage
from sage_gateway.vector_stores.file_attributes import (
    change_attributes,
    end_pending_attributes,
    next_pending_attributes,
)
from sage_gateway.vector_stores.schema import FileStatus, IdleExpiry, LastError
from sage_gateway.vector_stores.store_tables import StoreTables

PAGE = ListPage(None, 10)


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[StoreTables]:
    tables = StoreTables(tmp_path / "stores.sqlite")
    yield tables
    tables.close()


def test_a_store_is_found_by_its_tenant_alone(tables: StoreTables) -> None:
    add_store(tables)

    assert tables.store("acme", "vs_1") is not None
    assert tables.store("umbrella", "vs_1") is None
    assert tables.use_store("umbrella", "vs_1", 9999.0) is None
    assert tables.change_store("umbrella", "vs_1", {"name": "mine"}) is None
    assert not tables.delete_store("umbrella", "vs_1")
    assert tables.stores("umbrella", PAGE) == []
    assert not tables.add_file(replace(file_of(), tenant="umbrella"))


def test_the_counts_and_the_status_of_a_store_are_those_of_its_files(tables: StoreTables) -> None:
    add_store(tables)
    files = [file_of(f"file-{n}") for n in range(4)]
    for file in files:
        assert tables.add_file(file)
    tables.finish_file(finished(files[0], FileStatus.COMPLETED, usage_bytes=10))
    tables.finish_file(finished(files[1], FileStatus.COMPLETED, usage_bytes=5))
    broken = LastError(code="invalid_file", message="broken")
    tables.finish_file(finished(files[2], FileStatus.FAILED, last_error=broken))

    found = tables.store("acme", "vs_1")
    assert found is not None
    counts = found.store.file_counts
    assert (counts.in_progress, counts.completed, counts.failed, counts.total) == (1, 2, 1, 4)
    assert (found.store.status, found.store.usage_bytes) == ("in_progress", 15)
    assert [one.file.id for one in tables.open_files()] == ["file-3"]
    assert tables.count_open("acme") == 1


def test_files_are_listed_in_pages_and_by_status(tables: StoreTables) -> None:
    for store in ("vs_1", "vs_2"):
        add_store(tables, store)
        for n in range(3):
            tables.add_file(file_of(f"file-{n}", store))
    tables.finish_file(finished(file_of("file-1"), FileStatus.COMPLETED))

    first = tables.files("vs_1", None, ListPage(None, 2))
    rest = tables.files("vs_1", None, ListPage("file-1", 2))
    done = tables.files("vs_1", FileStatus.COMPLETED, PAGE)

    assert [file.id for file in first] == ["file-2", "file-1", "file-0"]  # one more: it continues
    assert [file.id for file in rest] == ["file-0"]
    assert [file.id for file in done] == ["file-1"]
    with pytest.raises(KeyError):
        tables.files("vs_1", None, ListPage("file-9", 2))


def test_what_ends_a_file_records_which_rows_are_to_be_deleted(tables: StoreTables) -> None:
    add_store(tables)
    for n in range(3):
        tables.add_file(file_of(f"file-{n}"))

    tables.finish_file(finished(file_of("file-0"), FileStatus.COMPLETED))
    tables.finish_file(finished(file_of("file-1"), FileStatus.FAILED))
    assert tables.delete_file("vs_1", "file-2")

    assert not tables.delete_file("vs_1", "file-2")
    kept = [("vs_1", "file-0", "v1"), ("vs_1", "file-1", ""), ("vs_1", "file-2", "")]
    assert pending_deletes(tables) == kept
    first = tables.next_pending_delete(0)
    assert first is not None
    tables.end_pending_delete(first.seq)
    assert pending_deletes(tables) == kept[1:]


def test_rows_of_a_file_that_is_attached_again_stay_until_it_has_ended(tables: StoreTables) -> None:
    add_store(tables)
    tables.add_file(file_of())
    tables.delete_file("vs_1", "file-1")

    assert tables.add_file(file_of(version="v2"))
    assert pending_deletes(tables) == []
    tables.finish_file(finished(file_of(), FileStatus.COMPLETED))  # the first one, too late
    assert pending_deletes(tables) == []
    found = tables.file("vs_1", "file-1")
    assert found is not None
    assert found.file.status is FileStatus.IN_PROGRESS
    tables.finish_file(finished(file_of(version="v2"), FileStatus.COMPLETED))

    assert pending_deletes(tables) == [("vs_1", "file-1", "v2")]


def test_attributes_are_to_be_written_once_the_file_has_ended(tables: StoreTables) -> None:
    add_store(tables)
    tables.add_file(file_of())

    assert change_attributes(tables, "vs_1", "file-2", {}) is None
    changed = change_attributes(tables, "vs_1", "file-1", {"n": 1})
    assert changed is not None
    assert changed.attributes == {"n": 1}
    assert next_pending_attributes(tables, 0) is None
    tables.finish_file(finished(file_of(), FileStatus.COMPLETED))

    pending = next_pending_attributes(tables, 0)
    assert pending is not None
    assert (pending.store, pending.dim, pending.file, pending.version) == (
        "vs_1",
        4,
        "file-1",
        "v1",
    )
    assert pending.attributes == {"n": 1}
    change_attributes(tables, "vs_1", "file-1", {"n": 2})
    end_pending_attributes(tables, pending.seq)  # of the first change, after the second
    later = next_pending_attributes(tables, 0)
    assert later is not None
    assert later.attributes == {"n": 2}
    end_pending_attributes(tables, later.seq)
    assert next_pending_attributes(tables, 0) is None


def test_a_file_that_is_attached_again_has_no_attributes_to_be_written(tables: StoreTables) -> None:
    add_store(tables)
    tables.add_file(file_of())
    change_attributes(tables, "vs_1", "file-1", {"n": 1})

    tables.add_file(file_of(version="v2"))
    tables.finish_file(finished(file_of(version="v2"), FileStatus.COMPLETED))

    assert next_pending_attributes(tables, 0) is None
    found = tables.file("vs_1", "file-1")
    assert found is not None
    assert found.file.attributes == {}


def test_a_deleted_store_leaves_one_delete_of_all_its_rows(tables: StoreTables) -> None:
    add_store(tables)
    tables.add_file(file_of("file-1"))
    tables.add_file(file_of("file-2"))
    tables.delete_file("vs_1", "file-1")

    assert tables.delete_store("acme", "vs_1")

    assert pending_deletes(tables) == [("vs_1", "", "")]
    assert tables.open_files() == []
    assert tables.stores_of_file("acme", "file-2") == []
    tables.finish_file(finished(file_of("file-2"), FileStatus.COMPLETED))
    assert len(pending_deletes(tables)) == 1


def test_a_store_expires_so_many_days_after_its_last_use(tables: StoreTables) -> None:
    day_s = 86_400
    add_store(tables, "vs_1", expires_after=IdleExpiry(anchor="last_active_at", days=2))
    add_store(tables, "vs_2")

    assert tables.expired_stores(1000 + 2 * day_s - 1) == []
    assert tables.expired_stores(1000 + 2 * day_s) == [("acme", "vs_1")]
    used = tables.use_store("acme", "vs_1", 1000.0 + day_s)

    assert used is not None
    assert used.store.last_active_at == 1000 + day_s
    assert used.store.expires_at == 1000 + 3 * day_s
    assert tables.expired_stores(1000 + 2 * day_s) == []


def test_stores_of_a_tenant_are_bounded(tables: StoreTables) -> None:
    for n in range(3):
        add_store(tables, f"vs_{n}")
    store = tables.store("acme", "vs_0")
    assert store is not None
    more = replace(store, store=store.store.model_copy(update={"id": "vs_9"}))

    assert not tables.add_store(more, stores_max=3)
    assert tables.add_store(replace(more, tenant="umbrella"), stores_max=3)
