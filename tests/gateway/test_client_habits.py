"""Requests as clients really send them: ids, encodings, other methods, pages of other sites."""

import base64
import gzip
import re
import zlib
from typing import Any

import httpx
import orjson
import pytest

from sage_flink.common import Settings
from sage_flink.flow import Pool
from sage_gateway.pipelines.served_pipeline import OnDelta, PipelineReply

KEY = "sk-sage-test"
CHAT = "/v1/chat/completions"
SITE = "https://app.example"
BODY = {"model": "talk", "messages": [{"role": "user", "content": "echo hi"}]}


class Quiet:
    """A pipeline that answers nothing."""

    def __init__(self, _: Settings) -> None:
        """It needs no settings."""

    async def answer(self, body: dict[str, Any], pool: Pool, on_delta: OnDelta | None) -> Any:
        return PipelineReply("")


@pytest.fixture(scope="module")
def gateway(start: Any, fake: Any) -> Any:
    models = {"talk": fake(), "vectors": fake("embedding")}
    with start(models, pool={"origins": [SITE]}, factories={"rag": Quiet}) as gateway:
        yield gateway


def post(gateway: Any, **more: Any) -> httpx.Response:
    found: httpx.Response = gateway.client.post(CHAT, json={**BODY, **more})
    return found


ROUTES = [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/health"), ("POST", "/v1/nope")]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("key", [KEY, "wrong"])
def test_every_answer_has_the_clients_request_id_or_a_new_one(
    gateway: Any, method: str, path: str, key: str
) -> None:
    def ids(**headers: str) -> str:
        headers["authorization"] = f"Bearer {key}"
        answer = httpx.request(method, gateway.url + path, json=BODY, headers=headers, verify=False)
        [found] = answer.headers.get_list("x-request-id")
        return str(found)

    assert ids(**{"x-request-id": f"my id {path}"}) == f"my id {path}"
    first, second = ids(), ids()
    assert first.startswith("req-")
    assert first != second
    assert ids(**{"x-request-id": "\x7f"}).startswith("req-")


def test_a_stream_has_a_request_id(gateway: Any) -> None:
    assert post(gateway, stream=True).headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/models/talk", "/metrics"])
def test_head_is_answered_as_get_without_a_body(gateway: Any, path: str) -> None:
    head, get = gateway.client.head(path), gateway.client.get(path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("identity", bytes),
        ("GZIP", gzip.compress),
    ],
)
def test_a_compressed_body_is_read(gateway: Any, encoding: str, encode: Any) -> None:
    headers = {"content-encoding": encoding}
    answer = gateway.client.post(CHAT, content=encode(orjson.dumps(BODY)), headers=headers)

    assert answer.json()["choices"][0]["message"]["content"].strip() == "hi"


def test_a_compressed_request_for_a_response_is_read(gateway: Any) -> None:
    body = gzip.compress(orjson.dumps({"model": "talk", "input": "echo hi"}))
    headers = {"content-encoding": "gzip"}
    answer = gateway.client.post("/v1/responses", content=body, headers=headers)

    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("encoding", "content", "status", "code"),
    [
        ("br", b"x", 415, "unsupported_encoding"),
        ("gzip", b"{}", 400, "invalid_encoding"),
        ("gzip", gzip.compress(orjson.dumps(BODY))[:-9], 400, "invalid_encoding"),
        ("gzip", gzip.compress(b" " * (64 << 20), 1), 413, "body_too_large"),
    ],
    ids=["brotli", "no gzip", "cut short", "a bomb"],
)
def test_a_body_that_cannot_be_decompressed_is_refused(
    gateway: Any, encoding: str, content: bytes, status: int, code: str
) -> None:
    answer = gateway.client.post(CHAT, content=content, headers={"content-encoding": encoding})

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_byte_order_mark_before_the_body_is_ignored(gateway: Any) -> None:
    content = b"\xef\xbb\xbf" + orjson.dumps(BODY)

    assert gateway.client.post(CHAT, content=content).status_code == 200


@pytest.mark.parametrize(
    "field", ["max_tokens", "max_completion_tokens", "n", "n_cmpl", "best_of", "seed"]
)
def test_a_whole_number_may_be_written_with_a_fraction(gateway: Any, field: str) -> None:
    assert post(gateway, **{field: 2.0}).status_code == 200


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"dimensions": "x"}, "dimensions"),
        ({"dimensions": 0}, "dimensions"),
        ({"input": 5.5}, "input"),
        ({"input": {}}, "input"),
        ({"input": []}, "input"),
    ],
)
def test_a_wrong_field_of_embeddings_is_named(
    gateway: Any, more: dict[str, Any], param: str
) -> None:
    body = {"model": "vectors", "input": "x", **more}
    answer = gateway.client.post("/v1/embeddings", json=body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_dimensions_may_be_written_with_a_fraction(gateway: Any) -> None:
    body = {"model": "vectors", "input": "x", "dimensions": 4.0}

    assert gateway.client.post("/v1/embeddings", json=body).status_code == 200


def tool_calls(*calls: Any) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "tool_calls": list(calls)}]}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages[0].content[0].text",
        ),
        ({"tools": "x"}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
        (tool_calls({}), "messages[0].tool_calls[0].type"),
        (tool_calls({"type": "custom"}), "messages[0].tool_calls[0].type"),
        (tool_calls({"type": "function"}), "messages[0].tool_calls[0].function"),
        (
            tool_calls({"type": "function", "function": {"name": "f", "arguments": {}}}),
            "messages[0].tool_calls[0].function.arguments",
        ),
        ({"temperature": "hot"}, "temperature"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"n": 0}, "n"),
    ],
)
@pytest.mark.parametrize("model", ["talk", "rag"])
@pytest.mark.parametrize("stream", [None, True])
def test_a_wrong_field_is_named_and_reaches_no_engine(
    gateway: Any, model: str, stream: bool | None, more: dict[str, Any], param: str
) -> None:
    if stream and "stream_options" in more:
        return  # a stream takes them
    before = gateway.engine_stats()["requests"]
    answer = post(gateway, **{"model": model, "stream": stream, **more})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert "retry-after" not in answer.headers
    assert gateway.engine_stats()["requests"] == before


@pytest.mark.parametrize("ids", [[101, 7592, 102], [[101, 7592], [102]]])
def test_token_ids_in_place_of_texts_are_refused_with_the_setting_to_change(
    gateway: Any, ids: Any
) -> None:
    answer = gateway.client.post("/v1/embeddings", json={"model": "vectors", "input": ids})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "input"
    assert "check_embedding_ctx_length=False" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "value"), [("x-sage-priority", "bogus"), ("x-sage-deadline-ms", "soon")]
)
def test_a_scheduling_header_that_cannot_be_read_is_refused(
    gateway: Any, name: str, value: str
) -> None:
    answer = gateway.client.post(CHAT, json=BODY, headers={name: value})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)


BASIC = {"authorization": "Basic " + base64.b64encode(f"me:{KEY}".encode()).decode()}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CHAT),
        ("POST", "/v1/files"),
        ("POST", "/pool/replicas/x/drain"),
        ("DELETE", "/pool/keys/x"),
    ],
)
def test_a_browsers_stored_key_cannot_change_anything(gateway: Any, method: str, path: str) -> None:
    headers = {**BASIC, "origin": "http://evil.example", "content-type": "text/plain"}
    answer = httpx.request(
        method, gateway.url + path, content=orjson.dumps(BODY), headers=headers, verify=False
    )

    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "basic_is_for_reading")
    assert httpx.get(gateway.url + "/v1/models", headers=BASIC, verify=False).status_code == 200


@pytest.mark.parametrize("path", [CHAT, "/v1/models"])
def test_pages_of_an_allowed_site_may_call_the_gateway(gateway: Any, path: str) -> None:
    wanted = {
        "origin": SITE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    preflight = httpx.options(gateway.url + path, headers=wanted)
    answer = gateway.client.post(CHAT, json=BODY, headers={"origin": SITE})

    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == SITE
    assert preflight.headers["access-control-allow-headers"] == "authorization, content-type"
    assert answer.headers["access-control-allow-origin"] == SITE
    assert "x-request-id" in answer.headers["access-control-expose-headers"]


def test_pages_of_other_sites_may_not_read_an_answer(gateway: Any) -> None:
    other = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    preflight = httpx.options(gateway.url + CHAT, headers=other)
    answer = gateway.client.get("/v1/models", headers=other)

    assert preflight.status_code == 403
    assert not {h for h in answer.headers if h.startswith("access-control")}


def test_the_docs_ask_no_other_host(gateway: Any) -> None:
    page = httpx.get(gateway.url + "/docs", headers=BASIC, verify=False)
    sources = re.findall(r"""(?:src|href)=["']([^"']+)""", page.text)

    assert page.status_code == 200
    assert '"validatorUrl": null' in page.text
    assert len(sources) >= 3
    for source in sources:
        asset = httpx.get(gateway.url + source, headers=BASIC, verify=False)
        assert (source[0], asset.status_code) == ("/", 200)
    assert gateway.client.get("/redoc").status_code == 404
