"""Service behind ``/v1/vector_stores`` and their files. Every method is scoped to one tenant.

Where OpenAI's reference is silent: a store is embedded by the model that was ``embedding_model`` of
``pool.yaml`` when it was made. A file that is attached again is indexed again, and its earlier rows
are found until then. A file of several documents (an archive, a mail, a table) is attached as a
whole: if one of them cannot be read, it has failed. Rows of a file in progress may be found
already; those of a file that was detached are no longer found a moment later, and new attributes
are compared a moment later, of a file in progress after its end. A file that is deleted or expires
leaves its stores. A store that expires is deleted.

Collections that pipelines write are searched by their names, and are not listed here.
"""

import logging
import secrets
import time
from pathlib import Path
from typing import Any

from sage_flink.common import StoreUnavailable
from sage_gateway.batches import BatchService
from sage_gateway.controlplane.pool import Pool
from sage_gateway.errors import Conflict, NotFound
from sage_gateway.storage.exclusive_database import ListPage, page_after
from sage_gateway.vector_stores.attachment import Send
from sage_gateway.vector_stores.attachment_factory import AttachmentFactory
from sage_gateway.vector_stores.catalog import StoreCatalog, no_store
from sage_gateway.vector_stores.embedding_models import embedding_model, split
from sage_gateway.vector_stores.file_batches import FileBatchService
from sage_gateway.vector_stores.file_chunks import Split
from sage_gateway.vector_stores.indexer import Indexer
from sage_gateway.vector_stores.row_writer import Collections
from sage_gateway.vector_stores.schema import (
    FileStatus,
    NewVectorStore,
    NewVectorStoreFile,
    VectorStoreChange,
    VectorStoreDeleted,
    VectorStoreFile,
    VectorStoreFileChange,
    VectorStoreFileDeleted,
    VectorStoreObject,
)
from sage_gateway.vector_stores.store_records import OwnedFile, OwnedStore
from sage_gateway.vector_stores.store_tables import StoreTables

log = logging.getLogger("sage.gateway")

#: Of a tenant: each store is a collection.
STORES_MAX = 100


class VectorStoreService:
    """The vector stores of one gateway; ``open`` on the loop that serves, after the files.

    ``file_batches``: those of its files. ``folder``: of temporary files. ``models``: where
    tokenizers lie. Methods raise ``NotFound`` for an id that is not the tenant's, and
    ``StoreUnavailable``.
    """

    def __init__(
        self,
        catalog: StoreCatalog,
        files: BatchService,
        pool: Pool,
        *,
        collections: Collections,
        send: Send,
        folder: Path,
        models: Path,
    ) -> None:
        self._catalog = catalog
        self._pool = pool
        self._models = models
        self._indexer = Indexer(
            catalog,
            files,
            collections=collections,
            send=send,
            split_of=self._split_of,
            folder=folder,
        )
        self._attachments = AttachmentFactory(catalog, files, pool)
        self.file_batches = FileBatchService(catalog, self._indexer, self._attachments)

    async def open(self) -> None:
        """Resume every file in progress; without its tables the service stays closed."""
        try:
            await self._catalog.open()
            await self._indexer.open()
        except StoreUnavailable as error:
            log.error("%s; /v1/vector_stores answers 503 until the next start", error)

    async def close(self) -> None:
        """Stop every file in its saved state."""
        await self._indexer.close()
        await self._catalog.close()

    # Vector stores.

    async def create(self, tenant: str, key: str, request: NewVectorStore) -> VectorStoreObject:
        """A new vector store, with its files in progress.

        Raises:
            NoReplica: the pool has no embedding model for it.
            InvalidRequest, QuotaExceeded: as :meth:`attach`.
            Conflict: the tenant has too many stores.
        """
        model = embedding_model(self._pool, self._pool.spec.embedding_model)
        owned = OwnedStore(tenant, model.name, model.dim, _new_store(request))
        chunking = request.chunking_strategy
        files = [
            await self._attachments.make(
                key, owned, NewVectorStoreFile(file_id=id_, chunking_strategy=chunking)
            )
            for id_ in dict.fromkeys(request.file_ids)
        ]
        await self._attachments.require_room(tenant, len(files))
        if not await self._catalog(StoreTables.add_store, owned, stores_max=STORES_MAX):
            message = f"there are {STORES_MAX} vector stores; delete some"
            raise Conflict(message, code="too_many_vector_stores")
        for file in files:
            await self._indexer.add(file)
        return await self.store(tenant, owned.store.id)

    async def stores(self, tenant: str, page: ListPage) -> list[VectorStoreObject]:
        """A page of the tenant's stores, and one more item if the list continues.

        Raises:
            NotFound: the page begins after a store that does not exist.
        """
        return await page_after(page, self._catalog(StoreTables.stores, tenant, page))

    async def store(self, tenant: str, store_id: str) -> VectorStoreObject:
        """The store with its counts."""
        return (await self._catalog.require_store(tenant, store_id)).store

    async def change(
        self, tenant: str, store_id: str, request: VectorStoreChange
    ) -> VectorStoreObject:
        """The store after the change."""
        cleared: dict[str, Any] = {"name": "", "metadata": {}, "expires_after": None}
        asked = {name: getattr(request, name) for name in request.model_fields_set}
        changes = {name: cleared[name] if value is None else value for name, value in asked.items()}
        changed = await self._catalog(StoreTables.change_store, tenant, store_id, changes)
        if changed is None:
            raise no_store(store_id)
        return changed

    async def delete(self, tenant: str, store_id: str) -> VectorStoreDeleted:
        """Delete the store; the uploads of its files stay."""
        if not await self._indexer.remove_store(tenant, store_id):
            raise no_store(store_id)
        return VectorStoreDeleted(id=store_id)

    # Files.

    async def attach(
        self, tenant: str, key: str, store_id: str, request: NewVectorStoreFile
    ) -> VectorStoreFile:
        """The file in progress; ``key`` pays for its vectors.

        Raises:
            InvalidRequest: it is no file for a vector store, or cannot be split so.
            QuotaExceeded: the tenant has too many files in progress.
        """
        store = await self._catalog.used_store(tenant, store_id)
        owned = await self._attachments.make(key, store, request)
        await self._attachments.require_room(tenant, 1)
        if not await self._indexer.add(owned):
            raise no_store(store_id)  # since the check
        return owned.file

    async def files(
        self, tenant: str, store_id: str, status: FileStatus | None, page: ListPage
    ) -> list[VectorStoreFile]:
        """A page of the store's files, and one more item if the list continues.

        Raises:
            NotFound: also, the page begins after a file that the store does not have.
        """
        await self._catalog.require_store(tenant, store_id)
        return await page_after(page, self._catalog(StoreTables.files, store_id, status, page))

    async def file(self, tenant: str, store_id: str, file_id: str) -> VectorStoreFile:
        """The file with its status."""
        await self._catalog.require_store(tenant, store_id)
        found = await self._catalog(StoreTables.file, store_id, file_id)
        if found is None:
            raise _no_file(store_id, file_id)
        return found.file

    async def change_attributes(
        self, tenant: str, store_id: str, file_id: str, request: VectorStoreFileChange
    ) -> VectorStoreFile:
        """The file with the attributes of the request."""
        await self._catalog.require_store(tenant, store_id)
        attributes = request.attributes or {}
        changed = await self._indexer.change_attributes(store_id, file_id, attributes)
        if changed is None:
            raise _no_file(store_id, file_id)
        return changed

    async def texts(self, tenant: str, store_id: str, file_id: str) -> list[str]:
        """The chunks of the file in their order; of one in progress those that are stored."""
        store = await self._catalog.require_store(tenant, store_id)
        found = await self._catalog(StoreTables.file, store_id, file_id)
        if found is None:
            raise _no_file(store_id, file_id)
        return await self._indexer.texts(store, found)

    async def detach(self, tenant: str, store_id: str, file_id: str) -> VectorStoreFileDeleted:
        """Remove the file from the store; its upload stays."""
        await self._catalog.require_store(tenant, store_id)
        if not await self._indexer.remove(store_id, file_id):
            raise _no_file(store_id, file_id)
        return VectorStoreFileDeleted(id=file_id)

    async def detach_everywhere(self, tenant: str, file_id: str) -> None:
        """Remove a file from all stores of the tenant, before its upload is deleted."""
        for store_id in await self._catalog(StoreTables.stores_of_file, tenant, file_id):
            await self._indexer.remove(store_id, file_id)

    def _split_of(self, store: OwnedStore, owned: OwnedFile) -> Split:
        model = self._pool.find(store.model)
        chunks = owned.file.chunking_strategy.static
        return split(chunks, model.spec if model else None, self._models)


def _new_store(request: NewVectorStore) -> VectorStoreObject:
    now_s = int(time.time())
    return VectorStoreObject(
        id=f"vs_{secrets.token_hex(12)}",
        created_at=now_s,
        name=request.name or "",
        description=request.description,
        expires_after=request.expires_after,
        last_active_at=now_s,
        metadata=request.metadata or {},
    )


def _no_file(store_id: str, file_id: str) -> NotFound:
    message = f"{store_id} has no file {file_id!r:.80}"
    return NotFound(message, code="file_not_found", param="file_id")
