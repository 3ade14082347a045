"""Responses of the gateway to its clients; the engine behind it is scripted by the prompt."""

import base64
import socket
import struct
import threading
import time
from itertools import product
from typing import Any

import httpx
import openai
import pytest

KEY = "sk-sage-test"


def error_of(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text
    return found


def test_the_engines_answer_to_a_chat_is_forwarded_byte_for_byte(gateway: Any) -> None:
    answer = gateway.chat("echo hello there", temperature=0.5)

    assert answer.json()["choices"][0]["message"]["content"] == "hello there"
    assert gateway.engine_stats()["last"]["temperature"] == 0.5


def test_an_alias_reaches_the_engine_under_the_models_own_name(gateway: Any) -> None:
    assert gateway.chat("echo hi", model="other-name").status_code == 200
    assert gateway.engine_stats()["last"]["model"] == "talk"


def test_the_callers_key_and_cookies_never_reach_the_engine(gateway: Any) -> None:
    body = {"model": "talk", "messages": [{"role": "user", "content": "echo hi"}]}
    headers = {"Cookie": "a=b", "X-Request-Id": "r-1"}
    gateway.client.post("/v1/chat/completions", json=body, headers=headers)

    seen = {name.lower(): value for name, value in gateway.engine_stats()["headers"].items()}
    assert "authorization" not in seen
    assert "cookie" not in seen
    assert seen["x-request-id"] == "r-1"


def test_a_stream_is_delivered_event_by_event_and_ends_with_done(gateway: Any) -> None:
    body = {
        "model": "talk",
        "stream": True,
        "messages": [{"role": "user", "content": "echo a b c"}],
    }
    with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        events = [line for line in answer.iter_lines() if line]

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert len(events) == 4
    assert events[-1] == "data: [DONE]"


def test_the_official_client_sees_whole_and_streamed_answers(gateway: Any) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY) as client:
        ask: Any = {"model": "talk", "messages": [{"role": "user", "content": "echo one two"}]}
        whole = client.chat.completions.create(**ask)
        pieces = [
            c.choices[0].delta.content for c in client.chat.completions.create(**ask, stream=True)
        ]
        vectors = client.embeddings.create(model="vectors", input=["a", "b", "a"]).data

    assert whole.choices[0].message.content == "one two"
    assert pieces == ["one ", "two "]
    assert vectors[0].embedding == vectors[2].embedding != vectors[1].embedding


def test_embeddings_are_floats_or_base64_in_the_order_of_the_texts(gateway: Any) -> None:
    def embed(**more: str) -> list[Any]:
        body = {"model": "vectors", "input": ["x", "y"], **more}
        data = gateway.client.post("/v1/embeddings", json=body).json()["data"]
        return [item["embedding"] for item in data]

    floats = embed()
    packed = [struct.unpack("<4f", base64.b64decode(v)) for v in embed(encoding_format="base64")]

    assert packed[0] == pytest.approx(floats[0])
    assert packed[1] == pytest.approx(floats[1])


def test_a_stream_that_breaks_off_ends_with_an_error_event(start: Any, fake: Any) -> None:
    with start({"talk": fake()}) as gateway:
        for script in ("cut 3", "break 3"):
            gateway.until(gateway.healthy)
            events = gateway.chat(script, stream=True).text.split("\n\n")

            assert len(events) == 5, events
            assert events[3].startswith('data: {"error":')
            assert "stream_interrupted" in events[3]
            assert "half an ev" not in "".join(events)


def test_a_disconnect_aborts_the_engines_request(gateway: Any) -> None:
    before = gateway.engine_stats()
    hung_up, within_s = before["hung_up"], 10.0  # the requests would last 20 s or more

    whole = {"model": "talk", "messages": [{"role": "user", "content": "sleep 30"}]}
    with gateway.open_call(whole):
        gateway.until(lambda: gateway.engine_stats()["requests"] > before["requests"])
    gateway.until(lambda: gateway.engine_stats()["hung_up"] == hung_up + 1, within_s)

    body = {"model": "talk", "stream": True, "messages": [{"role": "user", "content": "slow"}]}
    with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        next(answer.iter_bytes())
    gateway.until(lambda: gateway.engine_stats()["hung_up"] == hung_up + 2, within_s)
    slot = gateway.pool.models["talk"].replica_slots[0]
    gateway.until(lambda: slot.in_flight == 0, within_s)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings", "/v1/completions"])
def test_an_unknown_model_is_a_404_that_lists_the_models(gateway: Any, path: str) -> None:
    body = {"model": "gpt-9", "messages": [{"role": "user"}], "input": "x", "prompt": "x"}
    answer = gateway.client.post(path, json=body)

    assert answer.status_code == 404
    assert error_of(answer)["code"] == "model_not_found"
    assert "talk, vectors" in error_of(answer)["message"]


def test_a_model_of_the_wrong_kind_is_a_400(gateway: Any) -> None:
    chat = gateway.chat("echo hi", model="vectors")
    embedding = gateway.client.post("/v1/embeddings", json={"model": "talk", "input": "x"})

    assert (chat.status_code, embedding.status_code) == (400, 400)
    assert "embedding model" in error_of(chat)["message"]
    assert "chat model" in error_of(embedding)["message"]


def test_a_body_over_eight_megabytes_is_a_413_however_it_is_sent(gateway: Any) -> None:
    piece = b"x" * (1 << 20)

    whole = gateway.client.post("/v1/embeddings", content=piece * 9)
    chunked = gateway.client.post("/v1/embeddings", content=iter([piece] * 9))

    assert (whole.status_code, chunked.status_code) == (413, 413)
    assert error_of(whole)["code"] == "body_too_large"


def test_broken_json_is_a_400(gateway: Any) -> None:
    answer = gateway.client.post("/v1/chat/completions", content=b'{"model": "talk", ')

    assert answer.status_code == 400
    assert error_of(answer)["code"] == "invalid_json"


LONG: dict[str, tuple[dict[str, Any], str]] = {
    "chat/completions": (
        {"model": "talk", "messages": [{"role": "user", "content": "overflow"}]},
        "messages",
    ),
    "completions": ({"model": "talk", "prompt": "overflow"}, "prompt"),
    "embeddings": ({"model": "vectors", "input": ["short", "overflow"]}, "input"),
    "responses": ({"model": "talk", "input": "overflow"}, "input"),
}


@pytest.mark.parametrize(("route", "stream"), [*product(LONG, [False, True])])
def test_a_prompt_longer_than_the_context_is_a_400_that_names_its_field(
    gateway: Any, route: str, stream: bool
) -> None:
    body, param = LONG[route]
    more = {} if route == "embeddings" else {"stream": stream}
    answer = gateway.client.post(f"/v1/{route}", json={**body, **more})

    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)


def test_a_failure_of_the_engine_is_a_502_with_retry_after(gateway: Any) -> None:
    answer = gateway.chat("status 500")

    assert answer.status_code == 502
    assert int(answer.headers["retry-after"]) >= 1
    assert "scripted status 500" in error_of(answer)["message"]


def test_an_unknown_path_and_a_wrong_method_are_errors_in_openais_schema(
    gateway: Any,
) -> None:
    assert error_of(gateway.client.get("/v1/nope"))["message"].startswith("Not Found")
    assert gateway.client.get("/v1/chat/completions").status_code in (404, 405)
    assert gateway.client.get("/v1/models/nope").status_code == 404


def test_without_a_queue_a_request_to_a_full_replica_is_a_429_immediately(
    start: Any, fake: Any
) -> None:
    with start({"talk": fake(concurrency=1, queue_max=0)}) as gateway:
        first = threading.Thread(target=gateway.chat, args=("sleep 1",))
        first.start()
        gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 1)
        began = time.monotonic()
        second = gateway.chat("echo hi")
        first.join()

    assert second.status_code == 429
    assert int(second.headers["retry-after"]) >= 1
    assert time.monotonic() - began < 5


def test_an_engine_that_takes_too_long_is_a_504(start: Any, fake: Any) -> None:
    with start({"talk": fake(timeout_s=0.3)}) as gateway:
        assert gateway.chat("sleep 5").status_code == 504


def test_a_disconnect_in_the_middle_of_a_body_leaves_no_request(gateway: Any) -> None:
    host, port = gateway.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((host, int(port))) as half:
        half.sendall(
            b"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n"
            b"authorization: Bearer " + KEY.encode() + b"\r\n\r\nhalf"
        )

    assert gateway.chat("echo still here").status_code == 200


def test_all_fields_of_the_official_client_reach_the_engine(gateway: Any) -> None:
    more: dict[str, Any] = {
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}],
        "tool_choice": "required",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "logprobs": True,
        "top_logprobs": 2,
        "stop": ["a", "b"],
        "n": 2,
        "seed": 7,
        "extra_body": {"min_p": 0.1},
    }
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY) as client:
        messages: Any = [{"role": "user", "content": "echo hi"}]
        client.chat.completions.create(model="talk", messages=messages, **more)

    seen = gateway.engine_stats()["last"]
    sent = more | more.pop("extra_body")
    assert {name: seen[name] for name in sent if name in seen} == more | {"min_p": 0.1}


def test_a_ranking_puts_the_documents_with_the_querys_words_first(start: Any, fake: Any) -> None:
    with start({"ranks": fake("rerank"), "talk": fake()}) as gateway:
        body = {"model": "ranks", "query": "red apple", "documents": ["a", "red apple", "red"]}
        found = gateway.client.post("/v1/rerank", json={**body, "top_n": 2})
        wrong = gateway.client.post("/v1/rerank", json={**body, "model": "talk"})

    assert [one["index"] for one in found.json()["results"]] == [1, 2]
    assert (wrong.status_code, error_of(wrong)["code"]) == (400, "wrong_model_kind")


def test_a_model_is_retrieved_by_its_name_or_alias(gateway: Any) -> None:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY) as client:
        assert client.models.retrieve("talk").id == "talk"
        assert client.models.retrieve("other-name").owned_by == "sage"
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("gpt-9")
