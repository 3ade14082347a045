"""Vector stores without a gateway: the pool is a function, so each test decides its answers."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch_service import immediately, service_in
from row_collections import MemoryCollections, write_tokenizer

from sage_flink.common import StoreUnavailable
from sage_flink.db import VectorStore
from sage_gateway.batches import BatchService
from sage_gateway.config.pool_spec import PoolSpec
from sage_gateway.controlplane.pool import Pool
from sage_gateway.engines import KNOWN
from sage_gateway.requests.response import Response
from sage_gateway.vector_stores.catalog import StoreCatalog
from sage_gateway.vector_stores.schema import (
    FileStatus,
    NewFileBatch,
    NewVectorStore,
    NewVectorStoreFile,
    VectorStoreFile,
    VectorStoreFileBatch,
)
from sage_gateway.vector_stores.service import VectorStoreService
from sage_gateway.vector_stores.store_records import OwnedFile

Answer = Callable[[list[str]], Awaitable[Response]]
SPEC: dict[str, Any] = {
    "embedding_model": "vectors",
    "models": {"vectors": {"engine": "fake", "kind": "embedding", "dim": 4}},
}


class UnreliableCollections(MemoryCollections):
    """Collections of a server that is away while ``away``."""

    def __init__(self) -> None:
        self.away = False

    def open(self, name: str, dim: int, *, create: bool) -> VectorStore:
        if self.away:
            raise StoreUnavailable("the server does not answer")
        return super().open(name, dim, create=create)


@dataclass
class Stores:
    """A running service, with what its pool was asked for."""

    service: VectorStoreService
    files: BatchService
    collections: UnreliableCollections
    request_ids: list[str] = field(default_factory=list)

    async def upload(self, name: str, content: bytes, *, purpose: Any = "assistants") -> str:
        file = await self.files.upload("acme", name, io.BytesIO(content), purpose=purpose)
        return file.id

    async def attach(self, store_id: str, file_id: str, **more: Any) -> VectorStoreFile:
        wanted = NewVectorStoreFile(file_id=file_id, **more)
        return await self.service.attach("acme", "key-1", store_id, wanted)

    async def attach_batch(self, store_id: str, **wanted: Any) -> VectorStoreFileBatch:
        request = NewFileBatch(**wanted)
        return await self.service.file_batches.create("acme", "key-1", store_id, request)

    async def end_of(self, store_id: str, file_id: str, seconds: float = 60) -> VectorStoreFile:
        """The file once it has ended."""
        async with asyncio.timeout(seconds):
            while True:
                file = await self.service.file("acme", store_id, file_id)
                if file.status is not FileStatus.IN_PROGRESS:
                    return file
                await asyncio.sleep(0.02)

    async def until_rows(self, store_id: str, count: int) -> None:
        """Wait until the collection has so many rows."""
        await self.until(lambda: len(self.collections.rows(store_id)) == count)

    async def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until the condition is true."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def make_store(stores: Stores, **more: Any) -> str:
    """The id of a new store of the tenant acme."""
    return (await stores.service.create("acme", "key-1", NewVectorStore(**more))).id


async def vectors(texts: list[str]) -> Response:
    """A vector of four numbers for each text."""
    data = [
        {"index": n, "embedding": [1.0, float(len(text)), 0.5, 0.25]}
        for n, text in enumerate(texts)
    ]
    return Response(200, json.dumps({"data": data}).encode())


@asynccontextmanager
async def stores_in(
    folder: Path, answer: Answer = vectors, collections: UnreliableCollections | None = None
) -> AsyncIterator[Stores]:
    """The service over ``folder``; its pool gives ``answer`` to each request for vectors."""
    if not (folder / "minilm").exists():
        write_tokenizer(folder)
    collections = collections or UnreliableCollections()
    ids: list[str] = []

    async def send(owned: OwnedFile, path: str, request_id: str, body: bytes) -> Response:
        assert (owned.tenant, owned.key, path) == ("acme", "key-1", "/v1/embeddings")
        ids.append(request_id)
        return await answer(json.loads(body)["input"])

    pool = Pool(PoolSpec.model_validate(SPEC), KNOWN, models=folder, logs=folder)
    async with service_in(folder, immediately) as files:
        service = VectorStoreService(
            StoreCatalog(folder / "vector_stores.sqlite"),
            files,
            pool,
            collections=collections,
            send=send,
            folder=folder,
            models=folder,
        )
        await service.open()
        try:
            yield Stores(service, files, collections, ids)
        finally:
            await service.close()
