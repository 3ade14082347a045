"""Idempotency of several gateways that share a Redis."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import redis
from gateway_process import gateway_process
from redis_server import free_port, redis_server

from sage_flink.common import ConfigError
from sage_gateway.config.pool_file import load
from sage_gateway.storage.redis import RedisClient

pytestmark = pytest.mark.service

CHAT = "/v1/chat/completions"


@pytest.fixture
def shared_store(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Settings of gateways that share an idempotency store."""
    with redis_server(tmp_path) as url:
        yield {"ledger": {"store": "redis", "url": url, "lease_s": 30.0}}


def ask(client: httpx.Client, content: str, headers: dict[str, str], **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": content}]
    return client.post(CHAT, json={"model": "talk", "messages": messages, **more}, headers=headers)


def new_id_headers() -> dict[str, str]:
    return {"x-request-id": uuid.uuid4().hex}


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_one_gateway_is_replayed_by_another(
    start: Any, fake: Any, shared_store: Any, stream: bool
) -> None:
    id_headers = new_id_headers()
    with (
        start({"talk": fake()}, pool=shared_store) as one,
        start({"talk": fake()}, pool=shared_store) as two,
    ):
        first = ask(one.client, "echo one two", id_headers, stream=stream)
        again = ask(two.client, "echo one two", id_headers, stream=stream)

        assert again.headers["x-sage-ledger"] == "hit"
        assert again.content == first.content
        assert two.engine_stats()["requests"] == 0


def test_a_call_in_flight_at_one_gateway_is_awaited_at_another(
    start: Any, fake: Any, shared_store: Any
) -> None:
    id_headers = new_id_headers()
    with (
        start({"talk": fake()}, pool=shared_store) as one,
        start({"talk": fake()}, pool=shared_store) as two,
    ):
        with ThreadPoolExecutor(2) as callers:
            callers.submit(ask, one.client, "hold both", id_headers)
            one.until(lambda: one.engine_stats()["requests"] == 1)
            joining = callers.submit(ask, two.client, "hold both", id_headers)
            two.until(lambda: [call.source for call in two.generations()] == ["joined"])
            other = two.client.post(
                CHAT, json={"model": "talk", "messages": [{"role": "user", "content": "echo hi"}]}
            )
            one.release("both")
        joined = joining.result()

        assert joined.headers["x-sage-ledger"] == "joined"
        assert joined.json()["choices"][0]["message"]["content"] == "hold"
        assert other.status_code == 200
        assert two.engine_stats()["requests"] == 1


def test_after_a_failure_at_one_gateway_the_other_calls_its_engine(
    start: Any, fake: Any, shared_store: Any
) -> None:
    id_headers = new_id_headers()
    with (
        start({"talk": fake(timeout_s=1)}, pool=shared_store) as one,
        start({"talk": fake()}, pool=shared_store) as two,
    ):
        first = Thread(target=ask, args=(one.client, "sleep 1.5", id_headers))
        first.start()
        one.until(lambda: one.engine_stats()["requests"] == 1)
        second = ask(two.client, "sleep 1.5", id_headers)
        first.join()

        assert second.status_code == 200
        assert "x-sage-ledger" not in second.headers


def test_the_calls_of_a_killed_gateway_are_taken_over(
    start: Any, fake: Any, shared_store: Any, tmp_path: Path
) -> None:
    id_headers = new_id_headers()
    shared_store["ledger"]["lease_s"] = 1.5

    def hang(client: httpx.Client) -> None:
        with pytest.raises(httpx.TransportError):
            ask(client, "sleep 4", id_headers)

    with start({"talk": fake()}, pool=shared_store) as two:
        with gateway_process(tmp_path, {"talk": fake()}, **shared_store) as (process, client):
            first = Thread(target=hang, args=(client,))
            first.start()
            two.until(lambda: "sage_gateway_in_flight 1.0" in client.get("/metrics").text)
            process.kill()
            first.join()
        start_s = time.monotonic()
        taken = ask(two.client, "sleep 4", id_headers)

        assert taken.status_code == 200
        assert "x-sage-ledger" not in taken.headers
        assert 4 < time.monotonic() - start_s < 19  # the client gives up after 20 s
        assert two.engine_stats()["requests"] == 1


def test_a_gateway_without_its_redis_still_answers(start: Any, fake: Any, tmp_path: Path) -> None:
    id_headers = new_id_headers()
    with (
        redis_server(tmp_path) as url,
        start({"talk": fake()}, pool={"ledger": {"store": "redis", "url": url}}) as gateway,
    ):
        ask(gateway.client, "echo hi", id_headers)
        hit = ask(gateway.client, "echo hi", id_headers)
        with redis.Redis.from_url(url) as server:
            server.shutdown(nosave=True)
        answers = [ask(gateway.client, "echo hi", id_headers) for _ in range(5)]

        assert hit.headers["x-sage-ledger"] == "hit"
        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers.get("x-sage-ledger") for answer in answers} == {None}


def test_a_gateway_starts_without_its_redis(start: Any, fake: Any) -> None:
    missing = {"ledger": {"store": "redis", "url": f"redis://:a-secret@127.0.0.1:{free_port()}/0"}}
    with start({"talk": fake()}, pool=missing) as gateway:
        assert ask(gateway.client, "echo hi", new_id_headers()).status_code == 200


def test_redis_without_a_url_is_a_config_error(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text("models: {m: {engine: fake, kind: chat}}\nledger: {store: redis}\n")

    with pytest.raises(ConfigError, match=r"ledger\.url: is missing"):
        load(file, ["fake"])


def test_a_url_of_another_scheme_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"ledger\.url: .*redis://"):
        RedisClient("http://:a-secret@127.0.0.1/", "the store's Redis")
