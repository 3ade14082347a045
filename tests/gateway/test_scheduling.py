"""Queues in front of real engine processes: what clients observe."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


def post_chat(
    gateway: Any, content: str, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    body = {"model": "talk", "messages": [{"role": "user", "content": content}]}
    found: httpx.Response = gateway.client.post(
        "/v1/chat/completions", json=body, headers=dict(headers or {})
    )
    return found


def queue_of(gateway: Any) -> Any:
    return gateway.pool.models["talk"].queue


@contextlib.contextmanager
def busy(gateway: Any) -> Iterator[None]:
    """One request is at a replica while the block runs: a stream of 20 s."""
    messages = [{"role": "user", "content": "slow"}]
    body = {"model": "talk", "stream": True, "messages": messages}
    with gateway.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        events = answer.iter_bytes()  # without a reference the client would disconnect
        next(events)
        yield


def waiting(gateway: Any, count: int) -> None:
    gateway.until(lambda: len(queue_of(gateway)) == count)


def test_requests_beyond_the_slots_of_a_replica_are_queued_and_answered(
    start: Any, fake: Any, callers: ThreadPoolExecutor
) -> None:
    with start({"talk": fake(concurrency=1)}) as gateway:
        with busy(gateway):
            others = [callers.submit(post_chat, gateway, "echo hi") for _ in range(5)]
            waiting(gateway, 5)
            page = gateway.client.get("/metrics").text
        statuses = {other.result().status_code for other in others}
        after = gateway.client.get("/metrics").text

    assert statuses == {200}
    assert 'sage_gateway_queue_length{model="talk"} 5.0' in page
    assert 'sage_gateway_queue_ended_total{model="talk",outcome="dispatched"} 5.0' in after
    assert 'sage_gateway_queue_wait_seconds_count{model="talk"} 5.0' in after


def test_a_full_queue_answers_429_immediately(
    start: Any, fake: Any, callers: ThreadPoolExecutor
) -> None:
    with start({"talk": fake(concurrency=1, queue_max=1)}) as gateway:
        with busy(gateway):
            second = callers.submit(post_chat, gateway, "echo hi")
            waiting(gateway, 1)
            third = post_chat(gateway, "echo hi")

        assert third.status_code == 429
        assert int(third.headers["retry-after"]) >= 1
        assert third.json()["error"]["type"] == "rate_limit_error"
        assert second.result().status_code == 200


def test_a_request_leaves_the_queue_when_its_client_disconnects(start: Any, fake: Any) -> None:
    with start({"talk": fake(concurrency=1)}) as gateway, busy(gateway):
        body = {"model": "talk", "messages": [{"role": "user", "content": "echo hi"}]}
        with gateway.open_call(body):
            waiting(gateway, 1)
        gateway.until(lambda: queue_of(gateway).outcomes["cancelled"] == 1, 10.0)

        assert len(queue_of(gateway)) == 0
        assert gateway.engine_stats()["requests"] == 1


def test_an_expired_request_is_a_504_and_never_reaches_the_engine(start: Any, fake: Any) -> None:
    def due(in_ms: int) -> dict[str, str]:
        return {"x-sage-deadline-ms": str(int(time.time() * 1000) + in_ms)}

    with start({"talk": fake(concurrency=1, policy="slo")}) as gateway:
        at_once = post_chat(gateway, "echo hi", due(-1))
        with busy(gateway):
            in_the_queue = post_chat(gateway, "echo hi", due(200))

        assert (at_once.status_code, in_the_queue.status_code) == (504, 504)
        assert in_the_queue.json()["error"]["code"] == "deadline_exceeded"
        assert gateway.engine_stats()["requests"] == 1


def test_background_is_deferred_while_other_requests_are_queued(
    start: Any, fake: Any, callers: ThreadPoolExecutor
) -> None:
    with start({"talk": fake(concurrency=1)}) as gateway:
        with busy(gateway):
            batch = callers.submit(post_chat, gateway, "echo batch", {"x-background": "1"})
            waiting(gateway, 1)
            user = callers.submit(post_chat, gateway, "echo user")
            waiting(gateway, 2)
        user.result()
        batch.result()

        assert gateway.engine_stats()["last"]["messages"][0]["content"] == "echo batch"


def test_the_death_of_one_of_two_full_engines_fails_no_request(
    start: Any, fake: Any, callers: ThreadPoolExecutor
) -> None:
    with start({"talk": fake(replicas=2, concurrency=2)}) as gateway:
        gateway.until(lambda: gateway.pool.models["talk"].ready() == 2)
        asks = [callers.submit(post_chat, gateway, "sleep 0.05") for _ in range(100)]
        gateway.until(lambda: sum(a.done() for a in asks) > 20)
        os.kill(gateway.pool.models["talk"].replica_slots[0].process.pid, signal.SIGKILL)

        assert {a.result().status_code for a in asks} == {200}


def test_the_slots_of_a_restarted_replica_are_used(
    start: Any, fake: Any, callers: ThreadPoolExecutor
) -> None:
    health = {**fake()["health"], "backoff_first_s": 1}
    with start({"talk": fake(replicas=2, concurrency=1, health=health)}) as gateway:
        gateway.until(lambda: gateway.pool.models["talk"].ready() == 2)
        os.kill(gateway.pool.models["talk"].replica_slots[0].process.pid, signal.SIGKILL)
        gateway.until(lambda: gateway.pool.models["talk"].ready() == 1)
        with busy(gateway):
            second = callers.submit(post_chat, gateway, "echo hi")
            gateway.until(lambda: len(queue_of(gateway)) == 1 or second.done())

            assert second.result().status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_measured_limit_rises_when_it_was_fully_used(
    start: Any, fake: Any, callers: ThreadPoolExecutor, stream: bool
) -> None:
    with start({"talk": fake(concurrency="auto")}) as gateway:
        member = gateway.pool.models["talk"].replica_slots[0]
        before = member.concurrency
        ask: Callable[[], Any] = lambda: gateway.chat("sleep 0.2", stream=stream)  # noqa: E731
        answers = [callers.submit(ask) for _ in range(20)]
        statuses = {answer.result().status_code for answer in answers}
        page = gateway.client.get("/metrics").text

    assert statuses == {200}
    assert member.concurrency == before + 2
    assert 'sage_gateway_replica_concurrency{model="talk",replica="talk/0"} 10.0' in page
