"""Hooks for Schemathesis that turn its bodies into requests that reach an engine.

A request with a model gets the name of an existing one, since most would be a 404 otherwise. The
options of a stream go with ``"stream": true`` only, which a schema cannot say.
"""

from typing import Any

import schemathesis

MODELS = {"/v1/embeddings": "vectors", "/v1/rerank": "ranks"}


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    body = case.body
    if not isinstance(body, dict) or not isinstance(body.get("model"), str):
        return
    case.body = {**body, "model": MODELS.get(case.operation.path, "talk")}
    if isinstance(body.get("stream_options"), dict) and body.get("stream") is not True:
        del case.body["stream_options"]
