"""API keys: the routes that need one, and the routes that are public."""

import stat
from pathlib import Path
from typing import Any

import httpx
import pytest

from sage_flink.common import Settings
from sage_gateway.openai.routes import MODEL_ROUTES
from sage_gateway.tenants import Keys, local_key


def test_every_route_but_health_needs_a_key(gateway: Any) -> None:
    listed = {
        (method.upper(), path.replace("{name}", "docs").replace("{model}", "talk"))
        for path, methods in gateway.client.get("/openapi.json").json()["paths"].items()
        for method in methods
    }
    ours = {("POST", path) for path in MODEL_ROUTES}
    documents = {("GET", path) for path in ("/docs", "/redoc", "/openapi.json", "/", "/nope")}
    assert ours < listed
    assert ("POST", "/v1/vector_stores/docs/search") in listed

    for method, path in listed | documents:
        status = httpx.request(method, gateway.url + path, verify=False).status_code
        assert (status == 401) == (path != "/health"), (method, path)


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer wrong", "Basic sk-sage-test"])
def test_a_wrong_key_is_a_401_in_openais_schema_that_names_the_header(
    gateway: Any, header: str
) -> None:
    answer = httpx.get(f"{gateway.url}/v1/models", headers={"Authorization": header}, verify=False)

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert "Authorization: Bearer" in answer.json()["error"]["message"]


def test_a_browser_may_show_the_key_as_a_password(gateway: Any) -> None:
    refused = httpx.get(f"{gateway.url}/docs", verify=False)
    shown = httpx.get(f"{gateway.url}/docs", auth=("anyone", "sk-sage-test"), verify=False)

    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert shown.status_code == 200


def test_the_key_itself_is_not_stored() -> None:
    keys = Keys.of("secret")

    found = keys.find({b"authorization": b"bearer secret"})

    assert found is not None
    assert "secret" not in repr(found) + repr(vars(keys))
    assert keys.find({b"authorization": b"bearer Secret"}) is None


def test_the_first_start_creates_a_private_key_and_prints_it_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SAGE_GATEWAY_KEY", raising=False)
    settings = Settings(home=tmp_path)

    key = local_key(settings)
    assert key.startswith("sk-sage-")
    assert key in capsys.readouterr().out

    assert local_key(settings) == key
    assert capsys.readouterr().out == ""
    assert stat.S_IMODE((tmp_path / "keys" / "gateway").stat().st_mode) == 0o600


def test_models_lists_the_models_of_the_pool(gateway: Any) -> None:
    page = gateway.client.get("/v1/models").json()

    assert [model["id"] for model in page["data"]] == ["talk", "vectors"]
    assert page["object"] == "list"


def test_metrics_count_requests_tokens_and_replicas(gateway: Any) -> None:
    gateway.chat("echo hi")
    gateway.chat("echo hi", stream=True)
    gateway.chat("echo hi", model="made-up-" * 10)
    text = gateway.client.get("/metrics").text

    assert (
        'sage_gateway_requests_total{model="talk",route="/v1/chat/completions",status="200"}'
        in text
    )
    assert 'sage_gateway_tokens_total{direction="out",model="talk"}' in text
    assert 'sage_gateway_replicas{model="talk",state="ready"} 1.0' in text
    assert "sage_gateway_request_seconds_bucket" in text
    assert "sage_gateway_in_flight 0.0" in text
    assert "made-up" not in text


def test_the_docs_page_is_served_to_a_holder_of_the_key(gateway: Any) -> None:
    assert "swagger" in gateway.client.get("/docs").text.lower()
