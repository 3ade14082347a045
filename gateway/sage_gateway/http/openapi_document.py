"""The OpenAPI document: FastAPI's, plus the inference routes and the errors of all routes."""

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from sage_gateway.openai.routes import MODEL_ROUTES, RESPONSES_ROUTE, SEARCH_ROUTE
from sage_gateway.openai.schema import (
    ChatRequest,
    CompletionRequest,
    ResponsesRequest,
    SearchRequest,
)

STREAMED = (ChatRequest, CompletionRequest, ResponsesRequest)
OPEN_ROUTE = "/health"
ERRORS = {
    "400": "wrong request",
    "401": "no API key, or an unknown one",
    "403": "the key lacks this scope",
    "404": "unknown model, vector store, file, batch or key",
    "405": "method not allowed",
    "408": "the request did not arrive in time",
    "409": "in conflict with the current state",
    "413": "the body or the files are too large",
    "415": "the body has an encoding or a type that is not read",
    "422": "this Idempotency-Key was used with another body",
    "429": "the queue is full, or a limit or budget is used up; see Retry-After",
    "431": "the headers are too large",
    "502": "the engine failed",
    "503": "no replica is ready; see Retry-After",
    "504": "the engine took too long, or the deadline passed",
}
_TEXT = {"type": ["string", "null"]}
_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _TEXT,
                "code": _TEXT,
            },
        }
    },
}
_CACHE = (
    "With the header `x-sage-cache: ttl=SECONDS` an earlier answer to the same request is accepted "
    "if it is not older; of `/v1/embeddings` the vector of each text by itself, in whatever "
    "requests the texts come."
)


def document(app: FastAPI, title: str, version: str) -> dict[str, Any]:
    """The document of ``app``, generated once."""
    if app.openapi_schema is None:
        page = get_openapi(title=title, version=version, routes=app.routes)
        bodies: dict[str, type] = {
            **MODEL_ROUTES,
            RESPONSES_ROUTE: ResponsesRequest,
            SEARCH_ROUTE: SearchRequest,
        }
        schemas, parts = msgspec.json.schema_components(
            bodies.values(), ref_template="#/components/schemas/{name}"
        )
        for (path, kind), schema in zip(bodies.items(), schemas, strict=True):
            page["paths"][path] = {"post": _operation(path, kind, schema)}
        components = page.setdefault("components", {})
        # Said by the check of a chat, so that another kind of part is refused for its type.
        parts["Part"] |= {"required": ["type", "text"]}
        parts["Part"]["properties"]["text"] = {"type": "string"}
        components.setdefault("schemas", {}).update(parts | {"Error": _ERROR})
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        page["security"] = [{"key": []}]
        for path, methods in page["paths"].items():
            for operation in methods.values():
                _add_errors(path, operation)
        app.openapi_schema = page
    return app.openapi_schema


def _operation(path: str, kind: type, schema: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
    if kind in STREAMED:
        content["text/event-stream"] = {}
    operation: dict[str, Any] = {
        "summary": (kind.__doc__ or path).split("\n")[0],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"description": "OpenAI's answer", "content": content}},
        "description": _CACHE,
    }
    if "{name}" in path:
        name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
        operation["parameters"] = [name]
    return operation


def _add_errors(path: str, operation: dict[str, Any]) -> None:
    """FastAPI's 422 is a 400 here; ``/health`` needs no key, and a 503 has its page too."""
    answers = operation["responses"]
    answers.pop("422", None)
    if path == OPEN_ROUTE:
        operation["security"] = []
        answers["503"] = {**answers["200"], "description": "a model has no ready replica"}
        return
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status, text in ERRORS.items():
        answers.setdefault(status, {"description": text, "content": content})
