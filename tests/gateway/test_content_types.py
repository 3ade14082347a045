"""The Content-Type of a request: a form is refused, every other body is read as JSON."""

from typing import Any

import orjson
import pytest

CHAT = "/v1/chat/completions"
BODY = orjson.dumps({"model": "talk", "messages": [{"role": "user", "content": "echo hi"}]})
INFERENCE = [
    CHAT,
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/vector_stores/docs/search",
]
ADMIN = ["/v1/vector_stores", "/v1/batches", "/pool/keys"]
FORMS = [
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "Multipart/Form-Data",
]


@pytest.mark.parametrize("path", [*INFERENCE, *ADMIN])
@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("content", [BODY, b"model=talk"])
def test_a_form_is_a_415_that_names_the_type_to_send(
    gateway: Any, path: str, kind: str, content: bytes
) -> None:
    before = gateway.engine_stats()["requests"]
    answer = gateway.client.post(path, content=content, headers={"content-type": kind})
    error = answer.json()["error"]

    assert (answer.status_code, error["code"]) == (415, "unsupported_content_type")
    assert (error["type"], error["param"]) == ("invalid_request_error", "content-type")
    assert "send JSON as 'application/json'" in error["message"]
    assert gateway.engine_stats()["requests"] == before


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "json", ""])
def test_a_chat_is_json_whatever_else_its_content_type_says(gateway: Any, kind: str) -> None:
    """Pages of other sites can send text, but have no key (see the test of stored keys)."""
    answer = gateway.client.post(CHAT, content=BODY, headers={"content-type": kind})

    assert answer.status_code == 200


@pytest.mark.parametrize("path", ADMIN)
@pytest.mark.parametrize(("kind", "status"), [("text/plain", 415), ("", 400)])
def test_other_routes_take_json_by_its_content_type_only(
    gateway: Any, path: str, kind: str, status: int
) -> None:
    answer = gateway.client.post(path, content=b"{}", headers={"content-type": kind})

    assert (answer.status_code, answer.json()["error"]["param"]) == (status, "content-type")


@pytest.mark.parametrize("path", [*INFERENCE, *ADMIN])
def test_a_body_that_is_not_json_is_a_400_where_its_type_is_json(gateway: Any, path: str) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = gateway.client.post(path, content=b"model=talk", headers=headers)

    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
