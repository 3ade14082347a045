"""Hooks for Schemathesis that turn its bodies into requests that reach an engine.

A request with a model gets the name of an existing one, since most would be a 404 otherwise. The
options of a stream go with ``"stream": true`` only, and a call of a tool is required of tools that
are there, which a schema cannot say. A file that is attached is one that exists, for the same
reason.
"""

import os
from typing import Any

import schemathesis

MODELS = {"/v1/embeddings": "vectors", "/v1/rerank": "ranks"}
ATTACH = "/v1/vector_stores/{vector_store_id}/files"
ATTACH_BATCH = "/v1/vector_stores/{vector_store_id}/file_batches"
FILE_ID_CHARS_MAX = 64


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    body = case.body
    if not isinstance(body, dict):
        return
    file_id = body.get("file_id")
    if case.operation.path == ATTACH and isinstance(file_id, str):
        if len(file_id) <= FILE_ID_CHARS_MAX:  # a longer one is to be refused
            case.body = {**body, "file_id": os.environ["SAGE_TEST_FILE"]}
        return
    if case.operation.path == ATTACH_BATCH and isinstance(body.get("file_ids"), list):
        fits = [isinstance(id_, str) and len(id_) <= FILE_ID_CHARS_MAX for id_ in body["file_ids"]]
        if all(fits):
            case.body = {**body, "file_ids": [os.environ["SAGE_TEST_FILE"]] * len(fits)}
        return
    if not isinstance(body.get("model"), str):
        return
    case.body = {**body, "model": MODELS.get(case.operation.path, "talk")}
    if isinstance(body.get("stream_options"), dict) and body.get("stream") is not True:
        del case.body["stream_options"]
    choice = body.get("tool_choice")
    if isinstance(choice, dict) or (choice == "required" and not body.get("tools")):
        del case.body["tool_choice"]
