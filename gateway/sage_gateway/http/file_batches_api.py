"""Routes of the batches of files of ``/v1/vector_stores``, as OpenAI's clients call them."""

from fastapi import FastAPI, Request

from sage_gateway.http.keys_api import KEY
from sage_gateway.http.list_pages import ObjectList, Page, client_tenant, page_of
from sage_gateway.http.vector_stores_api import STORE, Status
from sage_gateway.vector_stores.file_batches import FileBatchService
from sage_gateway.vector_stores.schema import (
    NewFileBatch,
    VectorStoreFile,
    VectorStoreFileBatch,
)

BATCHES = STORE + "/file_batches"
BATCH = BATCHES + "/{batch_id}"


def add(app: FastAPI, service: FileBatchService) -> None:
    """Add the routes to ``app``."""

    @app.post(BATCHES, summary="Attach several uploaded files; all or none")
    async def create(
        request: Request, vector_store_id: str, wanted: NewFileBatch
    ) -> VectorStoreFileBatch:
        key = request.scope[KEY].id
        return await service.create(client_tenant(request), key, vector_store_id, wanted)

    @app.get(BATCH, summary="Get the status of a file batch, with the counts of its files")
    async def batch(request: Request, vector_store_id: str, batch_id: str) -> VectorStoreFileBatch:
        return await service.batch(client_tenant(request), vector_store_id, batch_id)

    @app.post(BATCH + "/cancel", summary="Cancel the files of a batch that are in progress")
    async def cancel(request: Request, vector_store_id: str, batch_id: str) -> VectorStoreFileBatch:
        return await service.cancel(client_tenant(request), vector_store_id, batch_id)

    @app.get(BATCH + "/files", summary="List the files of a batch")
    async def files(
        request: Request,
        vector_store_id: str,
        batch_id: str,
        page: Page,
        status: Status = None,
    ) -> ObjectList[VectorStoreFile]:
        tenant = client_tenant(request)
        found = await service.files(tenant, vector_store_id, batch_id, status, page)
        return ObjectList[VectorStoreFile](**page_of(found, page.limit))
