"""Service behind ``file_batches``: files that are attached, counted and cancelled together."""

import secrets

from sage_gateway.errors import Conflict, NotFound
from sage_gateway.storage.exclusive_database import ListPage, page_after
from sage_gateway.vector_stores.attachment_factory import AttachmentFactory
from sage_gateway.vector_stores.catalog import StoreCatalog, no_store
from sage_gateway.vector_stores.file_batch_tables import find_batch
from sage_gateway.vector_stores.indexer import Indexer
from sage_gateway.vector_stores.schema import (
    FileStatus,
    NewFileBatch,
    VectorStoreFile,
    VectorStoreFileBatch,
)
from sage_gateway.vector_stores.store_tables import StoreTables


class FileBatchService:
    """The batches of files. Methods raise ``NotFound`` for an id that is not the tenant's."""

    def __init__(
        self, catalog: StoreCatalog, indexer: Indexer, attachments: AttachmentFactory
    ) -> None:
        self._catalog = catalog
        self._indexer = indexer
        self._attachments = attachments

    async def create(
        self, tenant: str, key: str, store_id: str, request: NewFileBatch
    ) -> VectorStoreFileBatch:
        """The batch with its files in progress; ``key`` pays for their vectors.

        Raises:
            InvalidRequest, QuotaExceeded: as for one file; then none is attached.
        """
        store = await self._catalog.used_store(tenant, store_id)
        id_ = f"vsfb_{secrets.token_hex(12)}"
        files = [
            await self._attachments.make(key, store, wanted, version=id_)
            for wanted in request.new_files
        ]
        await self._attachments.require_room(tenant, len(files))
        if not await self._indexer.add_batch(id_, files):
            raise no_store(store_id)  # since the check
        return await self.batch(tenant, store_id, id_)

    async def batch(self, tenant: str, store_id: str, batch_id: str) -> VectorStoreFileBatch:
        """The batch with its counts."""
        await self._catalog.require_store(tenant, store_id)
        found = await self._catalog(find_batch, store_id, batch_id)
        if found is None:
            message = f"{store_id} has no file batch {batch_id!r:.80}"
            raise NotFound(message, code="file_batch_not_found", param="batch_id")
        return found

    async def cancel(self, tenant: str, store_id: str, batch_id: str) -> VectorStoreFileBatch:
        """Cancel the files that are in progress; the others stay.

        Raises:
            Conflict: no file of it is in progress.
        """
        batch = await self.batch(tenant, store_id, batch_id)
        if not await self._indexer.cancel_batch(store_id, batch_id):
            message = f"{batch_id} is {batch.status}; it cannot be cancelled"
            raise Conflict(message, code="file_batch_over")
        return await self.batch(tenant, store_id, batch_id)

    async def files(
        self, tenant: str, store_id: str, batch_id: str, status: FileStatus | None, page: ListPage
    ) -> list[VectorStoreFile]:
        """A page of the batch's files, and one more item if the list continues."""
        await self.batch(tenant, store_id, batch_id)
        found = self._catalog(StoreTables.files, store_id, status, page, batch_id=batch_id)
        return await page_after(page, found)
