"""The conformance suite of engines behind the gateway, on the engine that the prompt scripts.

``fake`` is started by the pool. ``remote`` is the same server, started by the test and configured
by its address. A further scripted engine is a line in ``ENGINES``.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI
from redis_server import free_port
from waiting import wait_until

from sage_gateway import engines
from sage_gateway.controlplane.readiness_probe import response_error

SERVER = Path(engines.__file__).with_name("serve_fake.py")
KEY_ENV, SECRET = "SAGE_TEST_API_KEY", "sk-of-the-provider"


@dataclass
class Engine:
    """A gateway in front of one engine, and the statistics of that engine."""

    gateway: Any
    engine_stats: Callable[[], dict[str, Any]]

    def chat(self, content: str, **more: Any) -> httpx.Response:
        answer: httpx.Response = self.gateway.chat(content, **more)
        return answer


@contextlib.contextmanager
def remote_server(*arguments: str) -> Iterator[int]:
    """The port of the scripted server, started outside the pool."""
    port = free_port()
    line = [sys.executable, str(SERVER), "--port", str(port), "--alias", "theirs", *arguments]
    with subprocess.Popen(line) as process:
        try:
            wait_until(lambda: answers(port), 10, "the remote server")
            yield port
        finally:
            process.kill()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", verify=False).status_code == 200
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def local(start: Any, fake: Any, **more: Any) -> Iterator[Engine]:
    models = {"talk": fake(**more), "vectors": fake("embedding", **more)}
    with start(models) as gateway:
        yield Engine(gateway, gateway.engine_stats)


def remote_model(port: int, **more: Any) -> dict[str, Any]:
    source = f"http://127.0.0.1:{port}/v1"
    named = {"engine": "remote", "source": source, "key_env": KEY_ENV, "remote_model": "theirs"}
    return {**named, "kind": "chat", **more}


@contextlib.contextmanager
def remote(start: Any, fake: Any, **more: Any) -> Iterator[Engine]:
    os.environ[KEY_ENV] = SECRET
    with remote_server() as port:
        vectors = remote_model(port, kind="embedding", dim=4, **more)
        models = {"talk": remote_model(port, **more), "vectors": vectors}
        with start(models, pool={"engine_hosts": ["127.0.0.1"]}) as gateway:
            yield Engine(
                gateway, lambda: httpx.get(f"http://127.0.0.1:{port}/seen", verify=False).json()
            )


ENGINES = {"fake": local, "remote": remote}


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, start: Any, fake: Any) -> Iterator[Engine]:
    with ENGINES[request.param](start, fake, timeout_s=2) as found:
        yield found


@pytest.fixture
def client(engine: Engine) -> Iterator[OpenAI]:
    url = f"{engine.gateway.url}/v1"
    with OpenAI(base_url=url, api_key="sk-sage-test", max_retries=0) as client:
        yield client


def test_a_chat_is_answered_with_its_usage(engine: Engine) -> None:
    answer = engine.chat("echo good morning").json()

    assert answer["choices"][0]["message"]["content"] == "good morning"
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def test_a_stream_has_one_event_per_word_and_an_end(engine: Engine) -> None:
    lines = engine.chat("echo a b c", stream=True).text.split("\n\n")

    assert lines[-2:] == ["data: [DONE]", ""]
    words = [json.loads(line[6:])["choices"][0]["delta"]["content"] for line in lines[:-2]]
    assert words == ["a ", "b ", "c "]


def test_vectors_are_in_order_and_of_the_configured_size(client: OpenAI) -> None:
    one, two = client.embeddings.create(model="vectors", input=["one", "two"]).data
    alone = client.embeddings.create(model="vectors", input="two").data[0]

    assert (one.index, two.index, len(one.embedding)) == (0, 1, 4)
    assert alone.embedding == two.embedding != one.embedding


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ("status 400", 400, None),
        ("status 429", 429, "rate_limit_exceeded"),
        ("status 500", 502, "engine_error"),
        ("status 503", 503, "not_ready"),
        ("overflow", 400, "context_length_exceeded"),
        ("sleep 5", 504, "timeout"),
    ],
)
def test_engine_errors_have_openais_schema(
    engine: Engine, script: str, status: int, code: str | None
) -> None:
    answer = engine.chat(script)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_stream_that_breaks_ends_with_an_error(engine: Engine) -> None:
    events = engine.chat("cut 2", stream=True).text.strip().split("\n\n")

    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "stream_interrupted"


@pytest.mark.parametrize("kind", ENGINES)
def test_a_disconnect_reaches_the_engine(start: Any, fake: Any, kind: str) -> None:
    body = {"model": "talk", "stream": True, "messages": [{"role": "user", "content": "slow"}]}
    with ENGINES[kind](start, fake) as engine:
        with engine.gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
            next(answer.iter_lines())

        # The whole stream would last 20 s.
        engine.gateway.until(lambda: engine.engine_stats()["hung_up"] == 1, 10)


def test_the_callers_key_is_not_sent_to_the_engine(engine: Engine) -> None:
    engine.chat("echo hi")
    headers = {name.lower(): value for name, value in engine.engine_stats()["headers"].items()}

    assert "sk-sage-test" not in str(headers)
    assert headers.get("authorization", "") in ("", f"Bearer {SECRET}")


def test_a_remote_engine_gets_its_own_model_name_and_key(start: Any, fake: Any) -> None:
    with remote(start, fake) as engine:
        engine.chat("echo hi")
        seen = engine.engine_stats()
        (talk, _) = engine.gateway.client.get("/pool/replicas").json()["data"]

    assert seen["last"]["model"] == "theirs"
    assert seen["headers"]["authorization"] == f"Bearer {SECRET}"
    assert (talk["state"], talk["pid"]) == ("ready", None)
    assert SECRET not in json.dumps(talk)


def test_a_remote_engine_that_refuses_the_gateways_key_is_a_502(start: Any, fake: Any) -> None:
    with remote(start, fake) as engine:
        answer = engine.chat("status 401")

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_error")
    assert "its key_env may be wrong" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"source": "http://127.0.0.2:1/v1"}, "not in engine_hosts (127.0.0.1)"),
        ({"source": None}, "needs a source"),
        ({"key_env": "NOT_THERE_API_KEY"}, "there is no variable NOT_THERE_API_KEY"),
        ({"key_env": "SAGE_GATEWAY_KEY"}, "pattern"),
        ({"engine": "fake", "source": None}, "are for engine remote"),
    ],
)
def test_an_invalid_remote_engine_is_refused(
    start: Any, fake: Any, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], message: str
) -> None:
    monkeypatch.setenv(KEY_ENV, SECRET)
    with start({"talk": fake()}, pool={"engine_hosts": ["127.0.0.1"]}) as gateway:
        answer = gateway.client.put("/pool/models/far", json=remote_model(1, **more))

    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_a_healthy_engine_that_fails_the_probe_is_not_ready(start: Any, fake: Any) -> None:
    health = {**fake()["health"], "start_timeout_s": 3}
    model = fake(arguments=["--probe-status", "500"], health=health)
    with start({"talk": model}, wait=False) as gateway:
        member = gateway.pool.models["talk"].replica_slots[0]
        gateway.until(lambda: member.replica.restarts > 0)

        assert member.replica.reason == (
            "not healthy within 3 s: a request of one token got status 500"
        )


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("chat", b'{"choices": [{}]}', ""),
        ("chat", b'{"choices": []}', "without choices"),
        ("chat", b"<html>", "not answered in OpenAI's shape"),
        ("chat", b"[]", "not answered in OpenAI's shape"),
        ("embedding", b'{"data": [{"embedding": [0.5, 0.5]}]}', ""),
        ("embedding", b'{"data": [{"embedding": [0.5]}]}', "have 1 numbers, and dim is 2"),
        ("embedding", b'{"data": [{"embedding": [1e999, 0]}]}', "not"),
        ("embedding", b'{"data": [{"embedding": ["a", "b"]}]}', "not answered"),
        ("embedding", b'{"data": []}', "not answered"),
        ("embedding", b'{"error": "x"}', "not answered"),
    ],
)
def test_the_response_to_the_probe_is_validated(kind: str, body: bytes, message: str) -> None:
    found = response_error(kind, body, 2)

    assert message in found
    assert bool(message) == bool(found)
