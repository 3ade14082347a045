"""Files of vector stores without a gateway: their end, and what survives a restart."""

import asyncio
import sqlite3
import time
from pathlib import Path

import pytest
from vector_store_service import UnreliableCollections, make_store, stores_in, vectors

from sage_gateway.errors import EngineFailed, InvalidKey, NotFound
from sage_gateway.requests.response import Response, error_response
from sage_gateway.storage.exclusive_database import ListPage
from sage_gateway.vector_stores.schema import FileStatus, VectorStoreChange

#: Each file is read by a process.
pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]
WORDS = " ".join(f"word{n}" for n in range(250)).encode()
SMALL = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0}}


async def test_a_file_is_completed_when_all_its_rows_are_stored(tmp_path: Path) -> None:
    async with stores_in(tmp_path) as stores:
        store = await make_store(stores)
        file = await stores.upload("words.txt", WORDS)
        attached = await stores.attach(
            store, file, chunking_strategy=SMALL, attributes={"year": 2024, "new": True}
        )
        done = await stores.end_of(store, file)
        rows = stores.collections.rows(store)
        page = await stores.service.store("acme", store)

    assert (attached.status, done.status, done.last_error) == ("in_progress", "completed", None)
    assert len(rows) == 3
    assert {row.fields["doc"] for row in rows} == {file}
    assert all(row.fields["title"] == "words.txt" for row in rows)
    assert all(row.fields["attributes"] == {"year": 2024, "new": True} for row in rows)
    ordered = sorted(rows, key=lambda row: row.fields["ordinal"])
    assert " ".join(row.fields["text"] for row in ordered).encode() == WORDS
    assert done.usage_bytes == len(WORDS) - 2 + 3 * 16
    assert (page.status, page.file_counts.completed, page.usage_bytes) == (
        "completed",
        1,
        done.usage_bytes,
    )


@pytest.mark.parametrize(
    ("name", "content", "code", "message"),
    [
        ("a.pdf", b"no pdf", "invalid_file", "not a readable PDF"),
        ("a.docx", b"PK no zip", "invalid_file", "a.docx"),
        ("a.txt", b"", "invalid_file", "holds no text"),
        ("a.exe", b"MZ", "unsupported_file", "suffix '.exe' is not one of"),
        ("-h\x00\n.txt", b"\x00", "invalid_file", "NUL"),
    ],
)
async def test_a_file_that_cannot_be_read_has_failed_with_the_reason(
    tmp_path: Path, name: str, content: bytes, code: str, message: str
) -> None:
    async with stores_in(tmp_path) as stores:
        store = await make_store(stores)
        file = await stores.upload(name, content)
        await stores.attach(store, file)
        failed = await stores.end_of(store, file)
        counts = (await stores.service.store("acme", store)).file_counts
        listed = await stores.service.files("acme", store, FileStatus.FAILED, ListPage(None, 10))

    assert failed.status is FileStatus.FAILED
    assert failed.last_error is not None
    assert failed.last_error.code == code
    assert message in failed.last_error.message
    assert str(tmp_path) not in failed.last_error.message
    assert (counts.failed, counts.total) == (1, 1)
    assert listed == [failed]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (error_response(EngineFailed("the engine is broken", retry_after_s=0)), "engine is broken"),
        (error_response(InvalidKey("the key of this work was revoked")), "was revoked"),
        (Response(200, b'{"data": []}'), "got 0"),
        (Response(200, b'{"data": [{"index": 0, "embedding": [0.5, 0.5]}]}'), "dimension 2"),
        (Response(200, b"<html>"), "not a page of embeddings"),
    ],
)
async def test_a_file_without_vectors_has_failed_and_has_no_rows(
    tmp_path: Path, answer: Response, message: str
) -> None:
    async def first_alone(texts: list[str]) -> Response:
        first = "word0 " in texts[0]
        return await vectors(texts) if first else answer

    async with stores_in(tmp_path, first_alone) as stores:
        store = await make_store(stores)
        words = " ".join(f"word{n}" for n in range(100 * 65)).encode()  # two requests
        file = await stores.upload("words.txt", words)
        await stores.attach(store, file, chunking_strategy=SMALL)
        failed = await stores.end_of(store, file)
        await stores.until_rows(store, 0)

    assert failed.status is FileStatus.FAILED
    assert failed.last_error is not None
    assert failed.last_error.code == "server_error"
    assert message in failed.last_error.message


async def test_a_file_in_progress_resumes_after_a_restart_with_the_same_requests(
    tmp_path: Path,
) -> None:
    collections = UnreliableCollections()
    asked = asyncio.Event()

    async def hang_at_the_second(texts: list[str]) -> Response:
        if "word0 " in texts[0]:
            return await vectors(texts)
        asked.set()
        await asyncio.sleep(600)
        raise AssertionError

    words = " ".join(f"word{n}" for n in range(100 * 65)).encode()
    async with stores_in(tmp_path, hang_at_the_second, collections) as stores:
        store = await make_store(stores)
        file = await stores.upload("words.txt", words)
        await stores.attach(store, file, chunking_strategy=SMALL)
        await asyncio.wait_for(asked.wait(), 60)
        before = stores.request_ids
        assert len(collections.rows(store)) == 64
        assert (await stores.service.file("acme", store, file)).status is FileStatus.IN_PROGRESS

    async with stores_in(tmp_path, collections=collections) as stores:
        done = await stores.end_of(store, file)
        after = stores.request_ids

    assert done.status is FileStatus.COMPLETED
    assert before == after
    assert len(collections.rows(store)) == 65


async def test_a_file_waits_for_a_server_of_rows_that_is_away(tmp_path: Path) -> None:
    async with stores_in(tmp_path) as stores:
        store = await make_store(stores)
        stores.collections.away = True
        file = await stores.upload("words.txt", WORDS)
        await stores.attach(store, file)
        await asyncio.sleep(4)
        waiting = await stores.service.file("acme", store, file)
        stores.collections.away = False
        done = await stores.end_of(store, file)

    assert waiting.status is FileStatus.IN_PROGRESS
    assert done.status is FileStatus.COMPLETED


async def test_rows_of_a_removed_file_are_deleted_also_after_a_restart(tmp_path: Path) -> None:
    collections = UnreliableCollections()
    async with stores_in(tmp_path, collections=collections) as stores:
        store = await make_store(stores)
        file, other = [await stores.upload(name, b"text") for name in ("a.txt", "b.txt")]
        for one in (file, other):
            await stores.attach(store, one)
            await stores.end_of(store, one)
        collections.away = True
        stores.service._indexer._context.rows._open.close()
        deleted = await stores.service.detach("acme", store, file)
        with pytest.raises(NotFound):
            await stores.service.file("acme", store, file)
        with pytest.raises(NotFound):
            await stores.service.detach("acme", store, file)
    collections.away = False
    assert len(collections.rows(store)) == 2

    async with stores_in(tmp_path, collections=collections) as stores:
        await stores.until_rows(store, 1)

    assert deleted.deleted
    assert collections.rows(store)[0].fields["doc"] == other


async def test_a_file_that_is_removed_while_it_is_indexed_leaves_no_rows(tmp_path: Path) -> None:
    asked = asyncio.Event()

    async def hang(texts: list[str]) -> Response:
        asked.set()
        await asyncio.sleep(600)
        raise AssertionError

    async with stores_in(tmp_path, hang) as stores:
        store = await make_store(stores)
        file = await stores.upload("words.txt", WORDS)
        await stores.attach(store, file)
        await asyncio.wait_for(asked.wait(), 60)
        await stores.service.detach("acme", store, file)

        assert (await stores.service.store("acme", store)).file_counts.total == 0
        assert stores.service._indexer._runs == {}
        assert stores.collections.rows(store) == []


async def test_a_file_that_is_attached_again_replaces_its_rows(tmp_path: Path) -> None:
    async with stores_in(tmp_path) as stores:
        store = await make_store(stores)
        file = await stores.upload("words.txt", WORDS)
        await stores.attach(store, file, chunking_strategy=SMALL)
        await stores.end_of(store, file)
        assert len(stores.collections.rows(store)) == 3

        await stores.attach(store, file, attributes={"edition": "second"})
        await stores.end_of(store, file)
        await stores.until_rows(store, 1)
        counts = (await stores.service.store("acme", store)).file_counts
        (row,) = stores.collections.rows(store)

    assert counts.total == 1
    assert row.fields["attributes"] == {"edition": "second"}


async def test_a_deleted_store_drops_its_collection(tmp_path: Path) -> None:
    async with stores_in(tmp_path) as stores:
        file = await stores.upload("words.txt", WORDS)
        store = await make_store(stores, file_ids=[file])
        await stores.end_of(store, file)
        await stores.service.delete("acme", store)
        await stores.until_rows(store, 0)
        with pytest.raises(NotFound):
            await stores.service.store("acme", store)
        with pytest.raises(NotFound):
            await stores.attach(store, file)

        assert (await stores.files.file("acme", file)).id == file


async def test_a_deleted_upload_leaves_all_stores(tmp_path: Path) -> None:
    async with stores_in(tmp_path) as stores:
        file = await stores.upload("words.txt", WORDS)
        made = [await make_store(stores, file_ids=[file]) for _ in range(2)]
        for store in made:
            await stores.end_of(store, file)
        await stores.service.detach_everywhere("umbrella", file)
        assert (await stores.service.store("acme", made[0])).file_counts.total == 1

        await stores.service.detach_everywhere("acme", file)

        for store in made:
            await stores.until_rows(store, 0)
            assert (await stores.service.store("acme", store)).file_counts.total == 0


async def test_what_has_expired_is_deleted(tmp_path: Path) -> None:
    async with stores_in(tmp_path) as stores:
        file = await stores.upload("words.txt", WORDS)
        kept, expired = [await make_store(stores, file_ids=[file]) for _ in range(2)]
        for store in (kept, expired):
            await stores.end_of(store, file)
        expiry = VectorStoreChange.model_validate(
            {"expires_after": {"anchor": "last_active_at", "days": 1}}
        )
        await stores.service.change("acme", expired, expiry)
    with sqlite3.connect(tmp_path / "vector_stores.sqlite") as db:
        db.execute("UPDATE stores SET active_at = ?", (int(time.time()) - 86_401,))
        db.execute("UPDATE attachments SET expires_at = ?", (int(time.time()) - 1,))
    db.close()

    async with stores_in(tmp_path, collections=stores.collections) as stores:
        for store in (kept, expired):
            await stores.until_rows(store, 0)
        assert (await stores.service.store("acme", kept)).file_counts.total == 0
        with pytest.raises(NotFound):
            await stores.service.store("acme", expired)
