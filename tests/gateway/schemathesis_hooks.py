"""Hooks for Schemathesis that turn its bodies into requests that reach an engine.

A request with a model gets the name of an existing one, since most would be a 404 otherwise.
"""

from typing import Any

import schemathesis

MODELS = {"/v1/embeddings": "vectors", "/v1/rerank": "ranks"}


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        return {**body, "model": MODELS.get(context.operation.path, "talk")}
    return body
