"""Vector stores: other tenants' do not exist, and a wrong request is a 400 of OpenAI's form."""

from typing import Any

import openai
import pytest
from gateway_client import client_of, create_key
from vector_store_client import SEA, attach, search, upload


def test_a_store_of_another_tenant_does_not_exist(gateway: Any, client: openai.OpenAI) -> None:
    mine, other = (client_of(gateway.url, create_key(gateway, t)) for t in ("acme", "umbrella"))
    with mine, other:
        store = mine.vector_stores.create()
        file = upload(mine, "sea.txt", SEA)
        attach(mine, store.id, file)
        others_file = upload(other, "sea.txt", SEA)

        for one in (other, client):
            stores, files = one.vector_stores, one.vector_stores.files
            for ask in (
                lambda stores=stores: stores.retrieve(store.id),
                lambda stores=stores: stores.update(store.id, name="mine"),
                lambda stores=stores: stores.delete(store.id),
                lambda stores=stores: stores.search(store.id, query="sea"),
                lambda files=files: files.list(store.id),
                lambda files=files: files.retrieve(file, vector_store_id=store.id),
                lambda files=files: files.content(file, vector_store_id=store.id),
                lambda files=files: files.update(file, vector_store_id=store.id, attributes={}),
                lambda files=files: files.delete(file, vector_store_id=store.id),
                lambda files=files: files.create(store.id, file_id=others_file),
            ):
                with pytest.raises(openai.NotFoundError):
                    ask()
        with pytest.raises(openai.NotFoundError) as caught:
            other.vector_stores.create(file_ids=[file])
        assert caught.value.code == "file_not_found"
        assert other.vector_stores.list().data == []
        admin = {"x-sage-tenant": "acme"}
        assert client.with_options(default_headers=admin).vector_stores.retrieve(store.id)
        hidden, absent = (
            gateway.client.post(f"/v1/vector_stores/{id_}/search", json={"query": "sea"}).json()
            for id_ in (store.id, "vs_" + "0" * 24)
        )
        assert (
            hidden["error"]["message"].replace(store.id, "vs_" + "0" * 24)
            == (absent["error"]["message"])
        )
        assert len(search(mine, store.id)) == 1


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"file_id": 5},
        {"file_id": "file-1", "unknown": 1},
        {"file_id": "file-1", "attributes": {"a": None}},
        {"file_id": "file-1", "attributes": {"a": "x" * 513}},
        {"file_id": "file-1", "attributes": {"a" * 65: 1}},
        {"file_id": "file-1", "attributes": {str(n): n for n in range(17)}},
        {"file_id": "file-1", "attributes": {"a": [1]}},
        {"file_id": "file-1", "chunking_strategy": {"type": "best"}},
        {"file_id": "file-1", "chunking_strategy": {"type": "static"}},
        *(
            {
                "file_id": "file-1",
                "chunking_strategy": {
                    "type": "static",
                    "static": {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap},
                },
            }
            for size, overlap in ((99, 0), (100, 51), (4097, 0), (100, -1))
        ),
    ],
)
def test_an_invalid_attachment_is_a_400(gateway: Any, store_with_file: str, wanted: Any) -> None:
    answer = gateway.client.post(f"/v1/vector_stores/{store_with_file}/files", json=wanted)

    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_chunk_larger_than_the_models_context_is_a_400(
    client: openai.OpenAI, store_with_file: str
) -> None:
    sizes: Any = {"max_chunk_size_tokens": 2049, "chunk_overlap_tokens": 0}
    with pytest.raises(openai.BadRequestError) as caught:
        client.vector_stores.files.create(
            store_with_file,
            file_id=upload(client, "sea.txt", SEA),
            chunking_strategy={"type": "static", "static": sizes},
        )

    assert caught.value.code == "invalid_chunking_strategy"


@pytest.mark.parametrize(
    "wanted",
    [
        {"name": 5},
        {"metadata": {"a": 1}},
        {"expires_after": {"anchor": "created_at", "days": 1}},
        {"expires_after": {"anchor": "last_active_at", "days": 0}},
        {"file_ids": ["x"] * 501},
        {"unknown": 1},
    ],
)
def test_an_invalid_store_is_a_400(gateway: Any, wanted: Any) -> None:
    assert gateway.client.post("/v1/vector_stores", json=wanted).status_code == 400


def test_a_query_longer_than_the_models_context_is_a_400_that_names_it(
    client: openai.OpenAI, store_with_file: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.vector_stores.search(store_with_file, query="overflow")

    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "query")


def test_a_file_for_a_batch_is_refused(client: openai.OpenAI, store_with_file: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.vector_stores.files.create(
            store_with_file, file_id=upload(client, "a", b"{}", "batch")
        )

    assert caught.value.code == "invalid_purpose"


def test_without_an_embedding_model_no_store_is_made(start: Any, fake: Any) -> None:
    with start({"talk": fake()}) as gateway:
        answer = gateway.client.post("/v1/vector_stores", json={})

    assert answer.status_code == 503
    assert "'minilm' is no embedding model" in answer.json()["error"]["message"]
