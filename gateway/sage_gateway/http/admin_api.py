"""Admin API on FastAPI: all routes but inference, and the OpenAPI document of all routes."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.routing import Match

from sage_flink.common import SageError
from sage_gateway.autoscaling.loop import Autoscaler
from sage_gateway.batches import BatchService
from sage_gateway.cache.store_protocol import CacheStore
from sage_gateway.controlplane.model_catalog import ModelCatalog
from sage_gateway.errors import GatewayError, InvalidRequest
from sage_gateway.http import batches_api as batch_routes
from sage_gateway.http import (
    cache_api,
    file_batches_api,
    keys_api,
    openapi_document,
    pool_api,
    vector_stores_api,
)
from sage_gateway.http import decisions_api as decisions
from sage_gateway.models.model import Model
from sage_gateway.observability.metrics import Metrics
from sage_gateway.openai.error_table import error_of
from sage_gateway.openai.foreign_errors import gateway_error
from sage_gateway.replicas.lifecycle import ReplicaState
from sage_gateway.requests.body_encoding import not_json_type
from sage_gateway.requests.response import error_response
from sage_gateway.tenants import Tenants
from sage_gateway.tenants.scopes import DOCS_ASSETS
from sage_gateway.vector_stores.service import VectorStoreService

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

TITLE, VERSION = "sage gateway", "0.1.0"


def build(
    catalog: ModelCatalog,
    metrics: Metrics,
    tenants: Tenants,
    batches: BatchService,
    vector_stores: VectorStoreService,
    autoscaler: Autoscaler,
    cache_stores: Sequence[CacheStore],
    lifespan: Lifespan,
) -> FastAPI:
    """The application of all routes but inference."""
    app = FastAPIOffline(  # a page that asks no other host, also not for the badge of a validator
        title=TITLE,
        version=VERSION,
        lifespan=lifespan,
        redoc_url=None,
        static_url=DOCS_ASSETS,
        swagger_ui_parameters={"validatorUrl": None},
    )
    _add_models(app, catalog)
    _add_metrics(app, metrics)
    keys_api.add(app, tenants)
    pool_api.add(app, catalog.pool)
    decisions.add(app, autoscaler)
    batch_routes.add(app, batches, vector_stores.detach_everywhere)
    vector_stores_api.add(app, vector_stores)
    file_batches_api.add(app, vector_stores.file_batches)
    cache_api.add(app, cache_stores)
    for kind in (GatewayError, SageError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _error_response)
    app.openapi = lambda: openapi_document.document(app, TITLE, VERSION)  # type: ignore[method-assign]
    return app


def _add_models(app: FastAPI, catalog: ModelCatalog) -> None:
    started_s = int(time.time())

    @app.get("/health", summary="Check that every model has a ready replica; needs no key")
    async def health() -> JSONResponse:
        page = health_page(catalog)
        return JSONResponse(page, 200 if page["status"] == "ok" else 503)

    @app.get("/v1/models", summary="List the models and the served pipelines")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(n, started_s) for n in catalog.names()]}

    @app.get("/v1/models/{model:path}", summary="Get a model")
    async def model(model: str) -> dict[str, Any]:
        if not catalog.knows(model):
            raise catalog.not_found(model)
        return _model(model, started_s)


def _add_metrics(app: FastAPI, metrics: Metrics) -> None:
    @app.get(
        "/metrics",
        summary="Counters in Prometheus' text format",
        response_class=PlainTextResponse,
    )
    async def page() -> Response:
        return Response(metrics.page(), media_type="text/plain; version=0.0.4")


def health_page(catalog: ModelCatalog) -> dict[str, Any]:
    """``ok``, ``starting`` (nothing has failed yet) or ``degraded``, and the replicas' states."""
    models = {
        name: {
            "ready": model.ready(),
            "replicas": [str(m.replica.state) for m in model.replica_slots],
            "reasons": sorted({m.replica.reason for m in model.replica_slots if m.replica.reason}),
        }
        for name, model in catalog.pool.models.items()
    }
    short = [m for m in catalog.pool.models.values() if _short(m)]
    fresh = all(
        m.replica.state is ReplicaState.STARTING and not m.replica.restarts
        for model in short
        for m in model.replica_slots
    )
    status = "ok" if not short else "starting" if fresh else "degraded"
    return {"status": status, "models": models, "mounted": sorted(catalog.pipelines)}


def _short(model: Model) -> bool:
    """Whether the model lacks a ready replica; one that may scale to zero may be starting."""
    if not model.wanted or model.ready():
        return False
    scaling = model.spec.scaling
    failed = any(member.replica.state is ReplicaState.FAILED for member in model.replica_slots)
    return scaling is None or scaling.min > 0 or failed


def _model(name: str, born_s: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": born_s, "owned_by": "sage"}


def _methods(request: Request) -> str:
    """Every method that the path takes; the framework lists those of its first route only."""
    found = [r for r in request.app.routes if r.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted(method for route in found for method in route.methods or ()))


def _invalid(request: Request, error: RequestValidationError) -> GatewayError:
    if isinstance(error.body, bytes):  # the framework loads a body whose type is JSON only
        if kind := request.headers.get("content-type"):
            return not_json_type(kind.encode("latin-1"))
        message = "the body has no content-type; send JSON as 'application/json'"
        return InvalidRequest(message, code="unsupported_content_type", param="content-type")
    found = [(".".join(map(str, e["loc"][1:])), e["msg"]) for e in error.errors()]
    message = "; ".join(f"{place}: {what}" if place else what for place, what in found)
    return InvalidRequest(message, param=found[0][0] or None)


async def _error_response(request: Request, error: Exception) -> Response:
    more = {}
    if isinstance(error, HTTPException):
        more = {"allow": _methods(request)} if error.status_code == 405 else {}
        known = "; the routes are listed in /docs" if error.status_code in (404, 405) else ""
        error = error_of(error.status_code, f"{error.detail}{known}")
    elif isinstance(error, RequestValidationError):
        error = _invalid(request, error)
    answer = error_response(gateway_error(error))
    headers = more | {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, answer.status, headers)
