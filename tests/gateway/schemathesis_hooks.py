"""Hooks for Schemathesis that turn its bodies into requests that reach an engine.

A request with a model gets the name of an existing one, since most would be a 404 otherwise. Whole
numbers are not written as ``22.0``: JSON Schema calls that an integer, and the gateway, as OpenAI,
refuses it.
"""

from typing import Any

import schemathesis

MODELS = {"/v1/embeddings": "vectors", "/v1/rerank": "ranks"}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    body = plain(body)
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        return {**body, "model": MODELS.get(context.operation.path, "talk")}
    return body


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
