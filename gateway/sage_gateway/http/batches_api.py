"""Routes ``/v1/files`` and ``/v1/batches``, as OpenAI's clients call them."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse
from pydantic import ValidationError
from starlette.datastructures import FormData, UploadFile

from sage_gateway.batches.schema import (
    UPLOADED,
    Batch,
    ExpiresAfter,
    FileDeleted,
    FileObject,
    NewBatch,
    Purpose,
)
from sage_gateway.batches.service import BatchService
from sage_gateway.errors import InvalidRequest
from sage_gateway.http.keys_api import KEY
from sage_gateway.http.list_pages import (
    After,
    Limit,
    ObjectList,
    Order,
    client_tenant,
    page_of,
)
from sage_gateway.storage.exclusive_database import ListPage

#: Removes a tenant's file from its vector stores.
Detach = Callable[[str, str], Awaitable[None]]
FILES = "/v1/files"
#: The fields of ``expires_after`` in a form, as OpenAI's clients name them.
ANCHOR, SECONDS = "expires_after[anchor]", "expires_after[seconds]"
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "purpose": {"enum": list(UPLOADED)},
                        ANCHOR: {"const": "created_at"},
                        SECONDS: {"type": "integer", "minimum": 3600, "maximum": 2_592_000},
                    },
                    "dependentRequired": {ANCHOR: [SECONDS], SECONDS: [ANCHOR]},
                }
            }
        },
    }
}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the content of the file",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def add(app: FastAPI, service: BatchService, detach: Detach) -> None:
    """Add the routes to ``app``; ``detach`` is called before a file is deleted."""
    _add_upload(app, service)
    _add_files(app, service, detach)
    _add_batches(app, service)


def _add_upload(app: FastAPI, service: BatchService) -> None:
    summary = "Upload a file of requests, or one for vector stores"

    @app.post(FILES, summary=summary, openapi_extra=UPLOAD)
    async def upload(request: Request) -> FileObject:
        async with request.form(max_files=1, max_fields=3) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise InvalidRequest(
                    "file is missing; send it as multipart/form-data", param="file"
                )
            purpose, expiry = _purpose(form), _expiry(form)
            tenant, name = client_tenant(request), file.filename or ""
            return await service.upload(tenant, name, file.file, expiry, purpose=purpose)


def _purpose(form: FormData) -> Purpose:
    """The purpose in the form.

    Raises:
        InvalidRequest: an upload cannot have it.
    """
    given = form.get("purpose")
    for purpose in UPLOADED:
        if purpose == given:
            return purpose
    raise InvalidRequest(f"purpose must be one of {', '.join(UPLOADED)}", param="purpose")


def _expiry(form: FormData) -> ExpiresAfter | None:
    """The expiry in the form.

    Raises:
        InvalidRequest: it is incomplete or out of range, or a field is unknown or given twice.
    """
    names = Counter(name for name, _ in form.multi_items())
    for name, count in names.items():
        if count > 1 or name not in ("file", "purpose", ANCHOR, SECONDS):
            raise InvalidRequest(f"{name:.80}: unknown, or given twice", param=name[:80])
    fields = {"anchor": form.get(ANCHOR), "seconds": form.get(SECONDS)}
    given = {name: value for name, value in fields.items() if value is not None}
    if not given:
        return None
    try:
        return ExpiresAfter.model_validate(given)
    except ValidationError as error:
        found = error.errors()[0]
        name = f"expires_after[{found['loc'][0]}]"
        raise InvalidRequest(f"{name}: {found['msg']}", param=name) from error


def _add_files(app: FastAPI, service: BatchService, detach: Detach) -> None:
    @app.get(FILES, summary="List your files")
    async def files(
        request: Request,
        after: After = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Order = "desc",
        purpose: Purpose | None = None,
    ) -> ObjectList[FileObject]:
        page = ListPage(after, limit, newest_first=order == "desc")
        found = await service.files(client_tenant(request), purpose, page)
        return ObjectList[FileObject](**page_of(found, limit))

    @app.get(FILES + "/{file_id}", summary="Get a file's metadata")
    async def file(request: Request, file_id: str) -> FileObject:
        return await service.file(client_tenant(request), file_id)

    @app.delete(FILES + "/{file_id}", summary="Delete a file")
    async def delete(request: Request, file_id: str) -> FileDeleted:
        tenant = client_tenant(request)
        await detach(tenant, file_id)
        return await service.delete(tenant, file_id)

    @app.get(
        FILES + "/{file_id}/content",
        summary="Get a file's content",
        response_class=FileResponse,
        responses=CONTENT,
    )
    async def content(request: Request, file_id: str) -> FileResponse:
        path = await service.content(client_tenant(request), file_id)
        return FileResponse(path, media_type="application/octet-stream")


def _add_batches(app: FastAPI, service: BatchService) -> None:
    @app.post("/v1/batches", summary="Run a file of requests as background work")
    async def create(request: Request, wanted: NewBatch) -> Batch:
        return await service.create(client_tenant(request), request.scope[KEY].id, wanted)

    @app.get("/v1/batches", summary="List your batches, the newest first")
    async def batches(
        request: Request, after: After = None, limit: Limit = 20
    ) -> ObjectList[Batch]:
        found = await service.batches(client_tenant(request), ListPage(after, limit))
        return ObjectList[Batch](**page_of(found, limit))

    @app.get("/v1/batches/{batch_id}", summary="Get a batch with its progress")
    async def batch(request: Request, batch_id: str) -> Batch:
        return await service.batch(client_tenant(request), batch_id)

    @app.post(
        "/v1/batches/{batch_id}/cancel",
        summary="Cancel a batch; the answers so far become its output file",
    )
    async def cancel(request: Request, batch_id: str) -> Batch:
        return await service.cancel(client_tenant(request), batch_id)
