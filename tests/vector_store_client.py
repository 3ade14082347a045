"""A client of vector stores: uploads, attached files until their end, searches."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from gateway_client import client_of
from gateway_process import gateway_process
from row_collections import MemoryCollections, open_in_memory, write_tokenizer
from waiting import wait_until

SEA, HILL = b"The sea is deep.", b"The hill is high."
#: Chunks of 100 words.
SMALL: Any = {
    "type": "static",
    "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 0},
}


@contextmanager
def gateway_with_stores(start: Any, fake: Any, home: Path) -> Iterator[Any]:
    """A gateway whose collections are in memory, with the embedding model ``vectors``."""
    write_tokenizer(home)
    more = {"collections": MemoryCollections(), "open_store": open_in_memory}
    pool = {"embedding_model": "vectors"}
    with start({"vectors": fake("embedding")}, home=home, pool=pool, **more) as gateway:
        yield gateway


@contextmanager
def killable_gateway(home: Path, fake: Any) -> Iterator[tuple[Any, openai.OpenAI]]:
    """The process of a gateway whose collections are files of ``home``, and its client."""
    if not (home / "minilm").exists():
        write_tokenizer(home)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    with (
        gateway_process(
            home,
            {"vectors": fake("embedding", health={})},
            module="durable_gateway",
            more={"SAGE_MODELS": str(home), "PYTHONPATH": path},
            embedding_model="vectors",
        ) as (process, http),
        client_of(str(http.base_url).rstrip("/")) as client,
    ):
        yield process, client


def upload(client: openai.OpenAI, name: str, content: bytes, purpose: Any = "assistants") -> str:
    return client.files.create(file=(name, content), purpose=purpose).id


def attach(client: openai.OpenAI, store_id: str, file_id: str, **more: Any) -> Any:
    """The file once it has ended."""
    client.vector_stores.files.create(store_id, file_id=file_id, **more)
    return wait_for_end(client, store_id, file_id)


def wait_for_end(client: openai.OpenAI, store_id: str, file_id: str) -> Any:
    def ended() -> Any:
        file = client.vector_stores.files.retrieve(file_id, vector_store_id=store_id)
        return file if file.status != "in_progress" else None

    return wait_until(ended, 60, f"the end of {file_id}")


def search(client: openai.OpenAI, store_id: str, **more: Any) -> list[Any]:
    query = more.pop("query", "sea\nThe sea is deep.")  # as it was embedded, with the title
    return client.vector_stores.search(store_id, query=query, **more).data


def store_with_a_file(gateway: Any) -> str:
    """The id of a store with one file."""
    with client_of(gateway.url) as client:
        store = client.vector_stores.create()
        attributes: Any = {"year": 2024, "new": True, "doc": "an attribute"}
        attach(client, store.id, upload(client, "sea.txt", SEA), attributes=attributes)
        return store.id
