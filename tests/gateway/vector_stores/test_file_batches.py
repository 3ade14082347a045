"""Batches of files through OpenAI's own client: made, counted, listed, cancelled; and a kill."""

import os
import signal
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway_client import client_of, create_key
from vector_store_client import (
    HILL,
    SEA,
    SMALL,
    attach,
    killable_gateway,
    search,
    upload,
    wait_for_end,
)

WORDS = " ".join(f"word{n}" for n in range(20_000)).encode()


def test_the_clients_own_create_and_poll_indexes_files(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    files = [upload(client, name, text) for name, text in (("sea.txt", SEA), ("hill.txt", HILL))]

    batch = client.vector_stores.file_batches.create_and_poll(
        store.id,
        file_ids=[*files, files[0]],
        attributes={"year": 2024},
        chunking_strategy=SMALL,
        poll_interval_ms=50,
    )

    assert batch.id.startswith("vsfb_")
    assert (batch.object, batch.vector_store_id) == ("vector_store.files_batch", store.id)
    assert (batch.status, batch.file_counts.completed, batch.file_counts.total) == (
        "completed",
        2,
        2,
    )
    found = search(client, store.id)
    assert {hit.file_id for hit in found} == set(files)
    assert [hit.attributes for hit in found] == [{"year": 2024}] * 2
    for file in client.vector_stores.files.list(store.id):
        assert file.chunking_strategy.static.model_dump() == SMALL["static"]


def test_the_clients_own_upload_and_poll_indexes_files(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    uploads = [("sea.md", SEA), ("hill.md", HILL)]

    batch = client.vector_stores.file_batches.upload_and_poll(store.id, files=uploads)

    assert (batch.status, batch.file_counts.completed) == ("completed", 2)


def test_files_of_a_batch_may_have_settings_of_their_own(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    sea, hill = upload(client, "sea.txt", SEA), upload(client, "hill.txt", HILL)
    files: Any = [
        {"file_id": sea, "attributes": {"depth": 10.5}, "chunking_strategy": SMALL},
        {"file_id": hill},
    ]

    client.vector_stores.file_batches.create_and_poll(
        store.id, files=files, attributes={"ignored": True}, poll_interval_ms=50
    )

    of_sea, of_hill = (
        client.vector_stores.files.retrieve(file, vector_store_id=store.id) for file in (sea, hill)
    )
    assert (of_sea.attributes, of_hill.attributes) == ({"depth": 10.5}, {})
    sizes = [file.chunking_strategy.static.max_chunk_size_tokens for file in (of_sea, of_hill)]
    assert sizes == [100, 800]


def test_the_files_of_a_batch_are_listed_in_pages_and_by_status(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    attach(client, store.id, upload(client, "other.txt", b"other"))
    good = [upload(client, f"{n}.txt", b"text %d" % n) for n in range(3)]
    bad = upload(client, "bad.pdf", b"no pdf")
    batches = client.vector_stores.file_batches
    batch = batches.create_and_poll(store.id, file_ids=[*good, bad], poll_interval_ms=50)
    of_it: Any = {"vector_store_id": store.id}

    assert (batch.status, batch.file_counts.failed, batch.file_counts.completed) == (
        "completed",
        1,
        3,
    )
    assert [f.id for f in batches.list_files(batch.id, limit=2, **of_it)] == [bad, *good[::-1]]
    oldest_first = batches.list_files(batch.id, limit=2, order="asc", **of_it)
    assert [file.id for file in oldest_first] == [*good, bad]
    failed = batches.list_files(batch.id, filter="failed", **of_it).data
    assert [file.id for file in failed] == [bad]
    client.vector_stores.files.delete(bad, **of_it)
    assert batches.retrieve(batch.id, **of_it).file_counts.total == 3


def test_a_batch_of_which_every_file_fails_has_failed(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    bad = upload(client, "bad.pdf", b"no pdf")

    batch = client.vector_stores.file_batches.create_and_poll(
        store.id, file_ids=[bad], poll_interval_ms=50
    )

    assert (batch.status, batch.file_counts.failed) == ("failed", 1)


def test_the_files_in_progress_of_a_cancelled_batch_are_not_found(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    files = [upload(client, f"{n}.txt", WORDS) for n in range(5)]
    batches = client.vector_stores.file_batches
    batch = batches.create(store.id, file_ids=files, chunking_strategy=SMALL)
    of_it: Any = {"vector_store_id": store.id}

    cancelled = batches.cancel(batch.id, **of_it)

    counts = cancelled.file_counts
    assert (batch.status, cancelled.status) == ("in_progress", "cancelled")
    assert (counts.in_progress, counts.cancelled + counts.completed) == (0, 5)
    assert counts.cancelled >= 3  # two are indexed at a time
    assert batches.retrieve(batch.id, **of_it) == cancelled
    first = batches.list_files(batch.id, filter="cancelled", **of_it).data[0]
    assert (first.status, first.last_error) == ("cancelled", None)
    assert client.vector_stores.retrieve(store.id).status == "completed"
    with pytest.raises(openai.ConflictError) as caught:
        batches.cancel(batch.id, **of_it)
    assert caught.value.code == "file_batch_over"
    assert attach(client, store.id, first.id).status == "completed"


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"file_ids": []},
        {"file_ids": ["file-1"], "files": [{"file_id": "file-1"}]},
        {"file_ids": ["file-1"] * 2001},
        {"files": [{"attributes": {}}]},
        {"file_ids": ["file-1"], "attributes": {"a": [1]}},
        {"file_ids": "file-1"},
    ],
)
def test_an_invalid_batch_is_a_400(gateway: Any, store_with_file: str, wanted: Any) -> None:
    answer = gateway.client.post(f"/v1/vector_stores/{store_with_file}/file_batches", json=wanted)

    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_batch_with_an_unknown_file_attaches_none(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    with pytest.raises(openai.NotFoundError) as caught:
        client.vector_stores.file_batches.create(
            store.id, file_ids=[upload(client, "sea.txt", SEA), "file-absent"]
        )

    assert caught.value.code == "file_not_found"
    assert client.vector_stores.files.list(store.id).data == []


def test_a_batch_of_another_tenant_or_store_does_not_exist(gateway: Any) -> None:
    mine, other = (client_of(gateway.url, create_key(gateway, t)) for t in ("acme", "umbrella"))
    with mine, other:
        store, second = mine.vector_stores.create(), mine.vector_stores.create()
        file = upload(mine, "sea.txt", SEA)
        batch = mine.vector_stores.file_batches.create(store.id, file_ids=[file])
        others_file = upload(other, "sea.txt", SEA)

        for client, of_store in ((other, store.id), (mine, second.id)):
            of_it: Any = {"vector_store_id": of_store}
            for ask in (
                client.vector_stores.file_batches.retrieve,
                client.vector_stores.file_batches.cancel,
                client.vector_stores.file_batches.list_files,
            ):
                with pytest.raises(openai.NotFoundError):
                    ask(batch.id, **of_it)
        with pytest.raises(openai.NotFoundError):
            other.vector_stores.file_batches.create(store.id, file_ids=[others_file])
        with pytest.raises(openai.NotFoundError):
            mine.vector_stores.file_batches.create(store.id, file_ids=[others_file])
        assert wait_for_end(mine, store.id, file).status == "completed"


@pytest.mark.processes
def test_a_batch_at_kill_9_is_completed_by_the_next_gateway(tmp_path: Path, fake: Any) -> None:
    with killable_gateway(tmp_path, fake) as (process, client):
        store = client.vector_stores.create()
        of_it: Any = {"vector_store_id": store.id}
        files = [upload(client, f"{n}.txt", WORDS[: 40_000 + n]) for n in range(4)]
        batches = client.vector_stores.file_batches
        ended = batches.create(store.id, file_ids=[upload(client, "x.txt", WORDS)])
        batches.cancel(ended.id, **of_it)
        batch = batches.create(store.id, file_ids=files, chunking_strategy=SMALL)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    with killable_gateway(tmp_path, fake) as (_, client):
        before = client.vector_stores.file_batches.retrieve(batch.id, **of_it)
        after = client.vector_stores.file_batches.poll(batch.id, **of_it, poll_interval_ms=50)
        cancelled = client.vector_stores.file_batches.retrieve(ended.id, **of_it)
        found = search(client, store.id, max_num_results=50)

    assert (before.status, before.file_counts.total) == ("in_progress", 4)
    assert (after.status, after.file_counts.completed) == ("completed", 4)
    assert (cancelled.status, cancelled.file_counts.cancelled) == ("cancelled", 1)
    assert {hit.file_id for hit in found} <= set(files)
