"""Loaded by Schemathesis: requests that name a model name one that is there, or most are a 404."""

from typing import Any

import schemathesis

MODELS = {"/v1/embeddings": "vectors", "/v1/rerank": "ranks"}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        return {**body, "model": MODELS.get(context.operation.path, "talk")}
    return body
