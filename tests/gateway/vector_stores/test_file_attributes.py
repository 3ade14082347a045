"""The attributes and the content of files, through OpenAI's own client and without a gateway."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import openai
import pytest
from vector_store_client import SEA, SMALL, attach, killable_gateway, search, upload
from vector_store_service import UnreliableCollections, make_store, stores_in, vectors
from waiting import wait_until

from sage_gateway.requests.response import Response
from sage_gateway.vector_stores.schema import FileStatus, VectorStoreFileChange

WORDS = " ".join(f"word{n}" for n in range(250))


def year(value: Any) -> Any:
    return {"type": "eq", "key": "year", "value": value}


def test_filters_compare_the_changed_attributes_of_a_file(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    of_it: Any = {"vector_store_id": store.id}
    sea = upload(client, "sea.txt", SEA)
    attach(client, store.id, sea, attributes={"year": 2023, "old": True})

    changed = client.vector_stores.files.update(sea, attributes={"year": 2024, "new": 1.5}, **of_it)

    assert (changed.id, changed.attributes) == (sea, {"year": 2024, "new": 1.5})
    assert client.vector_stores.files.retrieve(sea, **of_it) == changed
    wait_until(lambda: search(client, store.id, filters=year(2024)), 20, "the new attributes")
    [hit] = search(client, store.id)
    assert hit.attributes == {"year": 2024, "new": 1.5}
    assert search(client, store.id, filters=year(2023)) == []

    assert client.vector_stores.files.update(sea, attributes=None, **of_it).attributes == {}
    wait_until(lambda: not search(client, store.id, filters=year(2024)), 20, "the attributes' end")


def test_the_content_of_a_file_is_its_chunks_in_their_order(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    of_it: Any = {"vector_store_id": store.id}
    words = upload(client, "words.txt", WORDS.encode())
    attach(client, store.id, words, chunking_strategy=SMALL)
    bad = upload(client, "bad.pdf", b"no pdf")
    attach(client, store.id, bad)

    page = client.vector_stores.files.content(words, **of_it)

    assert page.object == "vector_store.file_content.page"
    assert [part.type for part in page] == ["text"] * 3
    assert " ".join(part.text or "" for part in page) == WORDS
    assert client.vector_stores.files.content(bad, **of_it).data == []


def test_files_that_a_store_does_not_have_are_not_found(
    client: openai.OpenAI, store_with_file: str
) -> None:
    files = client.vector_stores.files
    for store in (store_with_file, "vs_" + "0" * 24):
        with pytest.raises(openai.NotFoundError):
            files.content("file-absent", vector_store_id=store)
        with pytest.raises(openai.NotFoundError):
            files.update("file-absent", vector_store_id=store, attributes={})


@pytest.mark.parametrize("wanted", [{}, {"attributes": {"a": [1]}}, {"attributes": {}, "name": 1}])
def test_an_invalid_change_is_a_400(gateway: Any, store_with_file: str, wanted: Any) -> None:
    path = f"/v1/vector_stores/{store_with_file}/files/file-1"

    assert gateway.client.post(path, json=wanted).status_code == 400


@pytest.mark.processes
async def test_attributes_changed_while_a_file_is_indexed_are_those_of_its_rows(
    tmp_path: Path,
) -> None:
    asked, released = asyncio.Event(), asyncio.Event()

    async def wait(texts: list[str]) -> Response:
        asked.set()
        await released.wait()
        return await vectors(texts)

    async with stores_in(tmp_path, wait) as stores:
        store = await make_store(stores)
        file = await stores.upload("words.txt", WORDS.encode())
        await stores.attach(store, file, attributes={"n": 1})
        await asyncio.wait_for(asked.wait(), 60)

        change = VectorStoreFileChange(attributes={"n": True})
        changed = await stores.service.change_attributes("acme", store, file, change)
        released.set()
        done = await stores.end_of(store, file)
        # 1 == True, so the values are compared by identity.
        await stores.until(
            lambda: (
                [found["n"] is True for found in attributes_of(stores.collections, store)] == [True]
            )
        )

    assert (changed.status, changed.attributes) == (FileStatus.IN_PROGRESS, {"n": True})
    assert (done.status, done.attributes) == (FileStatus.COMPLETED, {"n": True})


@pytest.mark.processes
async def test_changed_attributes_are_written_also_after_a_restart(tmp_path: Path) -> None:
    collections = UnreliableCollections()
    async with stores_in(tmp_path, collections=collections) as stores:
        store = await make_store(stores)
        file = await stores.upload("words.txt", WORDS.encode())
        await stores.attach(store, file, attributes={"n": 1})
        await stores.end_of(store, file)
        collections.away = True
        stores.service._indexer._context.rows._open.close()
        for n in (2, 3):
            change = VectorStoreFileChange(attributes={"n": n})
            await stores.service.change_attributes("acme", store, file, change)
    collections.away = False
    assert attributes_of(collections, store) == [{"n": 1}]

    async with stores_in(tmp_path, collections=collections) as stores:
        await stores.until(lambda: attributes_of(collections, store) == [{"n": 3}])


@pytest.mark.processes
def test_attributes_changed_at_kill_9_are_compared_by_the_next_gateway(
    tmp_path: Path, fake: Any
) -> None:
    with killable_gateway(tmp_path, fake) as (process, client):
        store = client.vector_stores.create()
        sea = upload(client, "sea.txt", SEA)
        attach(client, store.id, sea, attributes={"year": 2023})
        files = client.vector_stores.files
        files.update(sea, vector_store_id=store.id, attributes={"year": 2024})
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    with killable_gateway(tmp_path, fake) as (_, client):
        found = wait_until(
            lambda: search(client, store.id, filters=year(2024)), 20, "the new attributes"
        )
        content = client.vector_stores.files.content(sea, vector_store_id=store.id)

    assert [hit.file_id for hit in found] == [sea]
    assert [part.text for part in content] == [SEA.decode()]


def attributes_of(collections: UnreliableCollections, store: str) -> list[dict[str, Any]]:
    return [row.fields["attributes"] for row in collections.rows(store)]
