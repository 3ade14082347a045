"""Files in progress of requests to attach them: what is checked before a file is accepted."""

import secrets
import time

from sage_gateway.batches import BatchService
from sage_gateway.batches.schema import INDEXED
from sage_gateway.controlplane.pool import Pool
from sage_gateway.errors import InvalidRequest, QuotaExceeded
from sage_gateway.vector_stores.catalog import StoreCatalog
from sage_gateway.vector_stores.embedding_models import embedding_model, windows
from sage_gateway.vector_stores.schema import (
    BATCH_FILES_MAX,
    FileChunking,
    NewVectorStoreFile,
    VectorStoreFile,
)
from sage_gateway.vector_stores.store_records import OwnedFile, OwnedStore
from sage_gateway.vector_stores.store_tables import StoreTables

#: Files of a tenant in progress: two full batches.
OPEN_MAX = 2 * BATCH_FILES_MAX


class AttachmentFactory:
    """Makes files in progress; ``files`` has the uploads."""

    def __init__(self, catalog: StoreCatalog, files: BatchService, pool: Pool) -> None:
        self._catalog = catalog
        self._files = files
        self._pool = pool

    async def make(
        self, key: str, store: OwnedStore, request: NewVectorStoreFile, *, version: str = ""
    ) -> OwnedFile:
        """The file in progress; without a ``version`` it has a new one.

        Raises:
            NotFound: the tenant has no such upload.
            InvalidRequest: it is no file for a vector store, or cannot be split so.
        """
        upload = await self._files.file(store.tenant, request.file_id)
        if upload.purpose not in INDEXED:
            rule = f"a vector store takes {', '.join(INDEXED)}"
            message = f"{upload.id} has purpose {upload.purpose!r}; {rule}"
            raise InvalidRequest(message, code="invalid_purpose", param="file_id")
        chunks = windows(request.chunking_strategy, embedding_model(self._pool, store.model))
        file = VectorStoreFile(
            id=upload.id,
            created_at=int(time.time()),
            vector_store_id=store.store.id,
            chunking_strategy=FileChunking(static=chunks),
            attributes=request.attributes or {},
        )
        version = version or secrets.token_hex(8)
        return OwnedFile(store.tenant, key, version, upload.expires_at, file)

    async def require_room(self, tenant: str, count: int) -> None:
        """Check that this many more files may be in progress.

        Raises:
            QuotaExceeded: the tenant has too many.
        """
        if count + await self._catalog(StoreTables.count_open, tenant) > OPEN_MAX:
            message = f"at most {OPEN_MAX} files may be in progress; wait for some to end"
            raise QuotaExceeded(message, retry_after_s=60)
