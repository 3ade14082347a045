"""Routes ``/v1/vector_stores`` and their files, as OpenAI's clients call them.

Those of batches of files are in ``file_batches_api.py``. A search is an inference route: see
``vector_stores/search.py``.
"""

from typing import Annotated

from fastapi import FastAPI, Query, Request, Response

from sage_gateway.http.keys_api import KEY
from sage_gateway.http.list_pages import ObjectList, Page, client_tenant, page_of
from sage_gateway.vector_stores.schema import (
    FileStatus,
    NewVectorStore,
    NewVectorStoreFile,
    TextContent,
    VectorStoreChange,
    VectorStoreDeleted,
    VectorStoreFile,
    VectorStoreFileChange,
    VectorStoreFileContent,
    VectorStoreFileDeleted,
    VectorStoreObject,
)
from sage_gateway.vector_stores.service import VectorStoreService

STORES = "/v1/vector_stores"
STORE = STORES + "/{vector_store_id}"
FILE = STORE + "/files/{file_id}"
Status = Annotated[FileStatus | None, Query(alias="filter")]


def add(app: FastAPI, service: VectorStoreService) -> None:
    """Add the routes to ``app``."""
    _add_stores(app, service)
    _add_files(app, service)
    _add_file(app, service)


def _add_stores(app: FastAPI, service: VectorStoreService) -> None:
    @app.post(STORES, summary="Make a vector store, of uploaded files if some are named")
    async def create(request: Request, wanted: NewVectorStore) -> VectorStoreObject:
        return await service.create(client_tenant(request), request.scope[KEY].id, wanted)

    @app.get(STORES, summary="List your vector stores")
    async def stores(request: Request, page: Page) -> ObjectList[VectorStoreObject]:
        found = await service.stores(client_tenant(request), page)
        return ObjectList[VectorStoreObject](**page_of(found, page.limit))

    @app.get(STORE, summary="Get a vector store with the counts of its files")
    async def store(request: Request, vector_store_id: str) -> VectorStoreObject:
        return await service.store(client_tenant(request), vector_store_id)

    @app.post(STORE, summary="Change the name, metadata or expiry of a vector store")
    async def change(
        request: Request, vector_store_id: str, wanted: VectorStoreChange
    ) -> VectorStoreObject:
        return await service.change(client_tenant(request), vector_store_id, wanted)

    @app.delete(STORE, summary="Delete a vector store; the uploads of its files stay")
    async def delete(request: Request, vector_store_id: str) -> VectorStoreDeleted:
        return await service.delete(client_tenant(request), vector_store_id)


def _add_files(app: FastAPI, service: VectorStoreService) -> None:
    @app.post(STORE + "/files", summary="Attach an uploaded file; it is indexed in the background")
    async def attach(
        request: Request, vector_store_id: str, wanted: NewVectorStoreFile
    ) -> VectorStoreFile:
        key = request.scope[KEY].id
        return await service.attach(client_tenant(request), key, vector_store_id, wanted)

    @app.get(STORE + "/files", summary="List the files of a vector store")
    async def files(
        request: Request, vector_store_id: str, page: Page, status: Status = None
    ) -> ObjectList[VectorStoreFile]:
        found = await service.files(client_tenant(request), vector_store_id, status, page)
        return ObjectList[VectorStoreFile](**page_of(found, page.limit))


def _add_file(app: FastAPI, service: VectorStoreService) -> None:
    @app.get(FILE, summary="Get the status of a file, and why it has failed")
    async def file(request: Request, vector_store_id: str, file_id: str) -> VectorStoreFile:
        return await service.file(client_tenant(request), vector_store_id, file_id)

    @app.post(FILE, summary="Replace the attributes of a file, which filters compare")
    async def change_file(
        request: Request, vector_store_id: str, file_id: str, wanted: VectorStoreFileChange
    ) -> VectorStoreFile:
        tenant = client_tenant(request)
        return await service.change_attributes(tenant, vector_store_id, file_id, wanted)

    @app.get(
        FILE + "/content",
        summary="Get the text of a file in its chunks, neighbours of which overlap",
        response_model=VectorStoreFileContent,
    )
    async def content(request: Request, vector_store_id: str, file_id: str) -> Response:
        texts = await service.texts(client_tenant(request), vector_store_id, file_id)
        page = VectorStoreFileContent(data=[TextContent(text=text) for text in texts])
        return Response(page.model_dump_json(), media_type="application/json")

    @app.delete(FILE, summary="Remove a file from a vector store; its upload stays")
    async def detach(
        request: Request, vector_store_id: str, file_id: str
    ) -> VectorStoreFileDeleted:
        return await service.detach(client_tenant(request), vector_store_id, file_id)
