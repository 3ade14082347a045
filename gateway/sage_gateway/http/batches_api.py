"""``/v1/files`` and ``/v1/batches`` over HTTP, as OpenAI's clients ask them."""

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse
from starlette.datastructures import UploadFile

from sage_gateway.batches.batch_store import Page
from sage_gateway.batches.schema import (
    Batch,
    BatchList,
    FileDeleted,
    FileList,
    FileObject,
    NewBatch,
    Purpose,
)
from sage_gateway.batches.service import Desk
from sage_gateway.errors import InvalidRequest
from sage_gateway.http.keys_api import KEY, TENANT

FILES = "/v1/files"
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
                        "purpose": {"const": "batch"},
                    },
                }
            }
        },
    }
}
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "what is in it",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
After = Annotated[str | None, Query(max_length=64, description="the last id of the page before")]


def add(app: FastAPI, desk: Desk) -> None:
    """Put the routes into ``app``."""
    _files(app, desk)
    _batches(app, desk)


def _files(app: FastAPI, desk: Desk) -> None:
    @app.post(FILES, summary="Hand in a file of requests", openapi_extra=UPLOAD)
    async def upload(request: Request) -> FileObject:
        async with request.form(max_files=1, max_fields=1) as form:
            file, purpose = form.get("file"), form.get("purpose")
            if not isinstance(file, UploadFile):
                raise InvalidRequest(
                    "file is missing; send it as multipart/form-data", param="file"
                )
            if purpose != "batch":
                raise InvalidRequest("purpose must be 'batch'", param="purpose")
            return await desk.upload(_tenant(request), file.filename or "", file.file)

    @app.get(FILES, summary="Your files")
    async def files(
        request: Request,
        after: After = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Literal["asc", "desc"] = "desc",
        purpose: Purpose | None = None,
    ) -> FileList:
        page = Page(after, limit, newest_first=order == "desc")
        found = await desk.files(_tenant(request), purpose, page)
        return FileList(**_listed(found, limit))

    @app.get(FILES + "/{file_id}", summary="One of them")
    async def file(request: Request, file_id: str) -> FileObject:
        return await desk.file(_tenant(request), file_id)

    @app.delete(FILES + "/{file_id}", summary="Delete a file")
    async def drop(request: Request, file_id: str) -> FileDeleted:
        return await desk.drop(_tenant(request), file_id)

    @app.get(
        FILES + "/{file_id}/content",
        summary="What is in a file",
        response_class=FileResponse,
        responses=CONTENT,
    )
    async def content(request: Request, file_id: str) -> FileResponse:
        path = await desk.content(_tenant(request), file_id)
        return FileResponse(path, media_type="application/octet-stream")


def _batches(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/batches", summary="Run a file of requests as background work")
    async def create(request: Request, wanted: NewBatch) -> Batch:
        return await desk.create(_tenant(request), request.scope[KEY].id, wanted)

    @app.get("/v1/batches", summary="Your batches, the newest first")
    async def batches(
        request: Request, after: After = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> BatchList:
        found = await desk.batches(_tenant(request), Page(after, limit))
        return BatchList(**_listed(found, limit))

    @app.get("/v1/batches/{batch_id}", summary="How far a batch is")
    async def batch(request: Request, batch_id: str) -> Batch:
        return await desk.batch(_tenant(request), batch_id)

    @app.post("/v1/batches/{batch_id}/cancel", summary="Cancel a batch; what is answered is kept")
    async def cancel(request: Request, batch_id: str) -> Batch:
        return await desk.cancel(_tenant(request), batch_id)


def _tenant(request: Request) -> str:
    tenant: str = request.scope[TENANT]
    return tenant


def _listed(found: list[Any], limit: int) -> dict[str, Any]:
    shown = found[:limit]
    first, last = (shown[0].id, shown[-1].id) if shown else (None, None)
    return {"data": shown, "first_id": first, "last_id": last, "has_more": len(found) > limit}
