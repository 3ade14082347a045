"""Vector stores and their files through OpenAI's own client, with collections in memory."""

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
from waiting import wait_until


def test_a_store_is_made_listed_changed_and_deleted(client: openai.OpenAI) -> None:
    made = client.vector_stores.create(name="notes", metadata={"of": "test"})
    expiry: Any = {"anchor": "last_active_at", "days": 7}
    changed = client.vector_stores.update(made.id, name="renamed", expires_after=expiry)

    assert made.id.startswith("vs_")
    assert (made.object, made.status, made.name) == ("vector_store", "completed", "notes")
    assert (made.metadata, made.file_counts.total, made.usage_bytes) == ({"of": "test"}, 0, 0)
    assert (changed.name, changed.metadata) == ("renamed", {"of": "test"})
    assert changed.expires_at == changed.last_active_at + 7 * 86_400
    assert client.vector_stores.retrieve(made.id) == changed
    assert changed in client.vector_stores.list().data
    assert search(client, made.id) == []
    assert client.vector_stores.delete(made.id).deleted
    for method in (
        client.vector_stores.retrieve,
        client.vector_stores.delete,
        lambda store_id: search(client, store_id),
    ):
        with pytest.raises(openai.NotFoundError):
            method(made.id)


def test_stores_are_listed_in_pages(gateway: Any) -> None:
    with client_of(gateway.url, create_key(gateway, "lists")) as client:
        ids = [client.vector_stores.create().id for _ in range(5)]

        newest_first = [store.id for store in client.vector_stores.list(limit=2)]
        oldest_first = [store.id for store in client.vector_stores.list(limit=2, order="asc")]

    assert newest_first == ids[::-1]
    assert oldest_first == ids


def test_an_attached_file_is_found_with_its_name_and_attributes(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    sea = upload(client, "sea.txt", SEA)
    attributes: Any = {"year": 2024, "depth": 10.5, "new": True, "doc": "an attribute"}
    attached = attach(client, store.id, sea, attributes=attributes)
    attach(client, store.id, upload(client, "hill.txt", HILL))

    found = search(client, store.id)

    assert (attached.status, attached.last_error) == ("completed", None)
    assert (attached.vector_store_id, attached.attributes) == (store.id, attributes)
    sizes = attached.chunking_strategy.static
    assert (sizes.max_chunk_size_tokens, sizes.chunk_overlap_tokens) == (800, 400)
    assert attached.usage_bytes == len(SEA) + 16
    assert len(found) == 2
    assert (found[0].file_id, found[0].filename) == (sea, "sea.txt")
    assert found[0].attributes == attributes
    assert found[0].score == pytest.approx(1.0)
    assert [part.text for part in found[0].content] == [SEA.decode()]
    assert found[1].attributes == {}
    counts = client.vector_stores.retrieve(store.id).file_counts
    assert (counts.completed, counts.total) == (2, 2)


@pytest.mark.parametrize(
    ("filters", "is_found"),
    [
        ({"type": "eq", "key": "year", "value": 2024}, True),
        ({"type": "gt", "key": "year", "value": 2024}, False),
        ({"type": "eq", "key": "doc", "value": "an attribute"}, True),
        ({"type": "in", "key": "doc", "value": ["other"]}, False),
        (
            {
                "type": "and",
                "filters": [
                    {"type": "lt", "key": "year", "value": 2025.5},
                    {"type": "eq", "key": "new", "value": True},
                ],
            },
            True,
        ),
    ],
)
def test_filters_compare_attributes(
    client: openai.OpenAI, store_with_file: str, filters: Any, is_found: bool
) -> None:
    assert bool(search(client, store_with_file, filters=filters)) == is_found


def test_a_filter_in_text_form_compares_the_fields_of_rows(
    gateway: Any, client: openai.OpenAI, store_with_file: str
) -> None:
    path = f"/v1/vector_stores/{store_with_file}/search"
    for text, count in (("attributes.year == 2024", 1), ("year == 2024", 0)):
        answer = gateway.client.post(path, json={"query": "sea", "filters": text})
        assert len(answer.json()["data"]) == count


def test_the_clients_own_upload_and_poll_indexes_a_file(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    file = client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("sea.md", b"# Sea\n\nIt is deep.")
    )

    assert file.status == "completed"
    assert search(client, store.id)[0].file_id == file.id


def test_a_store_is_made_with_files(client: openai.OpenAI) -> None:
    files = [upload(client, f"{n}.txt", b"text %d" % n, "user_data") for n in range(2)]
    sizes: Any = {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}
    store = client.vector_stores.create(
        file_ids=[*files, files[0]], chunking_strategy={"type": "static", "static": sizes}
    )
    ended = [wait_for_end(client, store.id, file) for file in files]

    assert (store.status, store.file_counts.in_progress) == ("in_progress", 2)
    assert [file.status for file in ended] == ["completed", "completed"]
    assert ended[0].chunking_strategy.static.model_dump() == sizes
    listed = client.vector_stores.files.list(store.id, limit=1, order="asc")
    assert [file.id for file in listed] == files
    assert client.vector_stores.files.list(store.id, filter="failed").data == []


def test_a_file_that_cannot_be_read_has_failed_and_is_not_found(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    file = upload(client, "sea.pdf", b"no pdf")
    failed = attach(client, store.id, file)

    assert (failed.status, failed.last_error.code) == ("failed", "invalid_file")
    assert "sea.pdf: not a readable PDF" in failed.last_error.message
    assert search(client, store.id) == []
    assert client.vector_stores.files.list(store.id, filter="failed").data == [failed]
    assert client.vector_stores.retrieve(store.id).file_counts.failed == 1


def test_a_removed_file_is_no_longer_found_and_its_upload_stays(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    file = upload(client, "sea.txt", SEA)
    attach(client, store.id, file)

    assert client.vector_stores.files.delete(file, vector_store_id=store.id).deleted

    wait_until(lambda: not search(client, store.id), 20, "the deletion of the rows")
    for method in (client.vector_stores.files.retrieve, client.vector_stores.files.delete):
        with pytest.raises(openai.NotFoundError) as caught:
            method(file, vector_store_id=store.id)
        assert caught.value.code == "file_not_found"
    assert client.files.retrieve(file).id == file


def test_a_deleted_upload_leaves_its_stores(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    file = upload(client, "sea.txt", SEA)
    attach(client, store.id, file)

    client.files.delete(file)

    wait_until(lambda: not search(client, store.id), 20, "the deletion of the rows")
    assert client.vector_stores.retrieve(store.id).file_counts.total == 0


def test_the_vectors_of_a_file_are_charged_to_the_tenant_of_its_key(gateway: Any) -> None:
    with client_of(gateway.url, create_key(gateway, "payer")) as client:
        store = client.vector_stores.create()
        attach(client, store.id, upload(client, "sea.txt", SEA))
    usage = gateway.client.get("/v1/usage").json()["data"]

    mine = [one for one in usage if one["tenant"] == "payer"]
    assert [(one["job"], one["model"], one["requests"]) for one in mine] == [
        ("vector_stores", "vectors", 1)
    ]


@pytest.mark.processes
def test_a_file_in_progress_at_kill_9_is_completed_by_the_next_gateway(
    tmp_path: Path, fake: Any
) -> None:
    words = " ".join(f"word{n}" for n in range(5_000)).encode()
    with killable_gateway(tmp_path, fake) as (process, client):
        store = client.vector_stores.create()
        done, open_ = upload(client, "sea.txt", SEA), upload(client, "words.txt", words)
        attach(client, store.id, done)
        client.vector_stores.files.create(store.id, file_id=open_, chunking_strategy=SMALL)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    with killable_gateway(tmp_path, fake) as (_, client):
        before = client.vector_stores.files.retrieve(open_, vector_store_id=store.id)
        ended = wait_for_end(client, store.id, open_)
        found = search(client, store.id, query="words", max_num_results=50)
        counts = client.vector_stores.retrieve(store.id).file_counts

    assert (before.status, ended.status) == ("in_progress", "completed")
    assert (counts.completed, counts.total) == (2, 2)
    assert len(found) == 50
    assert sum(hit.file_id == open_ for hit in found) >= 49
    assert len({hit.content[0].text for hit in found}) == 50
