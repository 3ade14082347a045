"""Scopes of keys and routes; and no key is ever logged."""

import base64
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

KEY = "sk-sage-test"
INFER, READ, ADMIN = {"infer"}, {"read"}, {"admin"}
#: Every route of the OpenAPI document, and its scopes. A new route needs a line.
MATRIX = {
    ("GET", "/v1/models"): INFER | READ | ADMIN,
    ("GET", "/v1/models/{model}"): INFER | READ | ADMIN,
    ("POST", "/v1/chat/completions"): INFER | ADMIN,
    ("POST", "/v1/completions"): INFER | ADMIN,
    ("POST", "/v1/responses"): INFER | ADMIN,
    ("POST", "/v1/embeddings"): INFER | ADMIN,
    ("POST", "/v1/rerank"): INFER | ADMIN,
    ("POST", "/v1/vector_stores/{name}/search"): INFER | ADMIN,
    ("POST", "/v1/vector_stores"): INFER | ADMIN,
    ("GET", "/v1/vector_stores"): INFER | ADMIN,
    ("GET", "/v1/vector_stores/{vector_store_id}"): INFER | ADMIN,
    ("POST", "/v1/vector_stores/{vector_store_id}"): INFER | ADMIN,
    ("DELETE", "/v1/vector_stores/{vector_store_id}"): INFER | ADMIN,
    ("POST", "/v1/vector_stores/{vector_store_id}/files"): INFER | ADMIN,
    ("GET", "/v1/vector_stores/{vector_store_id}/files"): INFER | ADMIN,
    ("GET", "/v1/vector_stores/{vector_store_id}/files/{file_id}"): INFER | ADMIN,
    ("POST", "/v1/vector_stores/{vector_store_id}/files/{file_id}"): INFER | ADMIN,
    ("DELETE", "/v1/vector_stores/{vector_store_id}/files/{file_id}"): INFER | ADMIN,
    ("GET", "/v1/vector_stores/{vector_store_id}/files/{file_id}/content"): INFER | ADMIN,
    ("POST", "/v1/vector_stores/{vector_store_id}/file_batches"): INFER | ADMIN,
    ("GET", "/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}"): INFER | ADMIN,
    ("POST", "/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel"): INFER | ADMIN,
    ("GET", "/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/files"): INFER | ADMIN,
    ("POST", "/v1/files"): INFER | ADMIN,
    ("GET", "/v1/files"): INFER | ADMIN,
    ("GET", "/v1/files/{file_id}"): INFER | ADMIN,
    ("DELETE", "/v1/files/{file_id}"): INFER | ADMIN,
    ("GET", "/v1/files/{file_id}/content"): INFER | ADMIN,
    ("POST", "/v1/batches"): INFER | ADMIN,
    ("GET", "/v1/batches"): INFER | ADMIN,
    ("GET", "/v1/batches/{batch_id}"): INFER | ADMIN,
    ("POST", "/v1/batches/{batch_id}/cancel"): INFER | ADMIN,
    ("GET", "/v1/usage"): READ | ADMIN,
    ("GET", "/metrics"): READ | ADMIN,
    ("GET", "/pool/decisions"): READ | ADMIN,
    ("GET", "/pool/keys"): ADMIN,
    ("POST", "/pool/keys"): ADMIN,
    ("DELETE", "/pool/keys/{key_id}"): ADMIN,
    ("GET", "/pool/models"): ADMIN,
    ("PUT", "/pool/models/{name}"): ADMIN,
    ("DELETE", "/pool/models/{name}"): ADMIN,
    ("POST", "/pool/models/{name}/scale"): ADMIN,
    ("GET", "/pool/replicas"): ADMIN,
    ("POST", "/pool/replicas/{name}/drain"): ADMIN,
    ("GET", "/pool/presets"): ADMIN,
    ("DELETE", "/pool/cache"): ADMIN,
}
#: Routes that the document does not list, or that do not exist.
BESIDES = {
    ("GET", "/docs"): READ | ADMIN,
    ("GET", "/docs/assets/swagger-ui.css"): READ | ADMIN,
    ("GET", "/docs/nope"): ADMIN,
    ("GET", "/openapi.json"): READ | ADMIN,
    ("GET", "/v1/nope"): INFER | ADMIN,
    ("GET", "/v1//models"): INFER | ADMIN,
    ("GET", "/pool/nope"): ADMIN,
    ("GET", "//pool/keys"): ADMIN,
    ("GET", "/nope"): ADMIN,
}


@pytest.fixture(scope="module")
def keys(gateway: Any) -> dict[str, str]:
    """One key for each scope."""
    return {
        scope: create_key(gateway, scopes=[scope])["key"] for scope in ("infer", "read", "admin")
    }


def create_key(gateway: Any, **wanted: Any) -> dict[str, Any]:
    answer = gateway.client.post("/pool/keys", json={"tenant": "acme", **wanted})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def send_request(gateway: Any, method: str, path: str, key: str = "") -> httpx.Response:
    filled = path.replace("{name}", "docs").replace("{model}", "talk").replace("{key_id}", "nope")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.request(method, gateway.url + filled, headers=headers, json={}, verify=False)


def routes_in_openapi(gateway: Any) -> set[tuple[str, str]]:
    paths = gateway.client.get("/openapi.json").json()["paths"]
    return {(method.upper(), path) for path, methods in paths.items() for method in methods}


def test_every_route_but_health_is_in_the_matrix_of_scopes(gateway: Any) -> None:
    assert routes_in_openapi(gateway) == {*MATRIX, ("GET", "/health")}
    assert send_request(gateway, "GET", "/health").status_code == 200


@pytest.mark.parametrize(("route", "scopes"), [*MATRIX.items(), *BESIDES.items()])
def test_a_route_accepts_its_scopes_and_refuses_others(
    gateway: Any, keys: dict[str, str], route: tuple[str, str], scopes: set[str]
) -> None:
    answers = {scope: send_request(gateway, *route, key) for scope, key in keys.items()}

    assert send_request(gateway, *route).status_code == 401
    assert send_request(gateway, *route, "sk-sage-wrong").status_code == 401
    assert {scope for scope, a in answers.items() if a.status_code not in (401, 403)} == scopes
    for scope in set(keys) - scopes:
        error = answers[scope].json()["error"]
        assert (error["code"], answers[scope].status_code) == ("missing_scope", 403)
        assert f"this one has {scope}" in error["message"]


def test_a_revoked_key_is_refused_immediately(gateway: Any) -> None:
    key = create_key(gateway)
    before = send_request(gateway, "GET", "/v1/models", key["key"])

    gateway.client.delete(f"/pool/keys/{key['id']}")

    assert before.status_code == 200
    assert send_request(gateway, "GET", "/v1/models", key["key"]).status_code == 401
    assert gateway.client.delete(f"/pool/keys/{key['id']}").status_code == 404


def test_a_key_works_after_a_restart_and_is_not_stored_in_any_file(
    start: Any, fake: Any, tmp_path: Path
) -> None:
    with start({"talk": fake()}, home=tmp_path) as gateway:
        key = create_key(gateway)["key"]

    with start({"talk": fake()}, home=tmp_path) as gateway:
        again = send_request(gateway, "GET", "/v1/models", key)
        shown = gateway.client.get("/pool/keys").text

    assert again.status_code == 200
    assert key not in shown
    for file in (tmp_path / "data" / "gateway").rglob("*"):
        assert file.stat().st_mode & 0o077 == 0
        assert file.is_dir() or key.encode() not in file.read_bytes()


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"tenant": "a", "scopes": ["root"]}, "'infer', 'read' or 'admin'"),
        ({"tenant": "a", "scopes": []}, "at least 1 item"),
        ({"tenant": "a", "limits": {"tokens_per_day": 0}}, "greater than or equal to 1"),
        ({"tenant": "a", "limits": {"tokens": 1}}, "Extra inputs"),
        ({"tenant": "a b"}, "match pattern"),
        ({"tenant": "local"}, "take another name"),
        ({}, "Field required"),
    ],
)
def test_an_invalid_key_request_is_refused(gateway: Any, wanted: Any, message: str) -> None:
    answer = gateway.client.post("/pool/keys", json=wanted)

    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_no_key_is_ever_logged(
    start: Any, fake: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with start({"talk": fake()}, home=tmp_path) as gateway:
        key = create_key(gateway, limits={"requests_per_minute": 2})["key"]
        basic = base64.b64encode(f"anyone:{key}".encode()).decode()
        shown = [f"Bearer {key}", f"Bearer {key}-wrong", f"Basic {basic}", key]
        for header in shown * 2:
            for content in ("echo hi", "status 500"):
                ask = {"model": "talk", "messages": [{"role": "user", "content": content}]}
                httpx.post(
                    f"{gateway.url}/v1/chat/completions",
                    json=ask,
                    headers={"Authorization": header},
                    verify=False,
                )
        logs = [path.read_text() for path in (tmp_path / "logs").iterdir()]

    logged = caplog.text + "".join(logs)
    for secret in (key, KEY, basic):
        assert secret not in logged
