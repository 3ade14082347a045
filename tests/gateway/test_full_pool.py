"""The parts of a pool together: full replicas, one of them failing, and queued requests."""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.config.pool_spec import PoolSpec
from sage_gateway.controlplane.replica_factory import models_of
from sage_gateway.engines import ENGINES
from sage_gateway.models.model import Model
from sage_gateway.replicas.circuit_breaker import Breaker, Circuit
from sage_gateway.replicas.lifecycle import ReplicaState

CHAT = "/v1/chat/completions"
CHAT_COSTS = 5  # tokens, as the fake engine reports
RARELY = {"interval_s": 60, "timeout_s": 1}  # no health check interferes


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(40) as pool:
        yield pool


def member(gateway: Any, replica: int = 0, model: str = "talk") -> Any:
    return gateway.pool.models[model].replica_slots[replica]


def both_ready(gateway: Any, model: str = "talk") -> None:
    gateway.until(lambda: gateway.pool.models[model].ready() == 2)


def waiting(gateway: Any, model: str = "talk") -> int:
    return len(gateway.pool.models[model].queue)


@pytest.mark.parametrize("routing", ["least_loaded", "round_robin", "prefix", "session"])
def test_killing_one_of_two_replicas_under_a_full_queue_fails_no_request(
    start: Any, fake: Any, callers: ThreadPoolExecutor, routing: str
) -> None:
    with start({"talk": fake(replicas=2, concurrency=2, routing=routing)}) as gateway:
        both_ready(gateway)
        asks = [callers.submit(gateway.chat, "sleep 0.05") for _ in range(120)]
        gateway.until(lambda: waiting(gateway) > 20)
        os.kill(member(gateway).process.pid, signal.SIGKILL)
        ends = Counter(ask.result().status_code for ask in asks)

    assert ends == {200: 120}


def test_a_hung_replica_with_a_full_queue_does_not_stall_other_models(
    start: Any, fake: Any, callers: ThreadPoolExecutor
) -> None:
    hung = fake(concurrency=2, queue_max=8, health=RARELY, timeout_s=20)
    with start({"talk": hung, "other": fake(concurrency=2)}) as gateway:
        engine = member(gateway).process
        engine.send_signal(signal.SIGSTOP)
        asks = [callers.submit(gateway.chat, "echo hi") for _ in range(20)]
        gateway.until(lambda: waiting(gateway) == 8 and sum(a.done() for a in asks) == 10)
        took_s = []
        for _ in range(40):
            began = time.monotonic()
            assert gateway.chat("echo hi", model="other").status_code == 200
            took_s.append(time.monotonic() - began)
        engine.send_signal(signal.SIGCONT)
        ends = Counter(ask.result().status_code for ask in asks)

    assert sorted(took_s)[20] < 0.5
    assert ends == {200: 10, 429: 10}


def test_a_request_is_queued_for_a_healthy_replica_rather_than_sent_to_an_open_circuit(
    start: Any, fake: Any, callers: ThreadPoolExecutor
) -> None:
    with start({"talk": fake(replicas=2, concurrency=1, health=RARELY)}) as gateway:
        both_ready(gateway)
        member(gateway).set_breaker(Breaker(Circuit.OPEN, retry_at_s=time.monotonic() + 60))
        asks = [callers.submit(gateway.chat, "sleep 0.1") for _ in range(5)]
        ends = [ask.result().status_code for ask in asks]

        assert ends == [200] * 5
        assert gateway.pool.models["talk"].queue.outcomes["dispatched"] > 0
        assert [gateway.engine_stats("talk", i)["requests"] for i in range(2)] == [0, 5]


def test_a_hedge_does_not_wait_for_a_free_slot(
    start: Any, fake: Any, callers: ThreadPoolExecutor
) -> None:
    model = fake("embedding", replicas=2, concurrency=1, health=RARELY, hedge_after_ms=20)
    body = {"model": "vectors", "input": "x"}
    with start({"vectors": model}) as gateway:
        both_ready(gateway, "vectors")
        engines = [member(gateway, i, "vectors").process for i in range(2)]
        for engine in engines:
            engine.send_signal(signal.SIGSTOP)
        asks = [callers.submit(gateway.client.post, "/v1/embeddings", json=body) for _ in range(2)]
        gateway.until(
            lambda: all(m.in_flight for m in gateway.pool.models["vectors"].replica_slots)
        )
        time.sleep(0.2)
        assert waiting(gateway, "vectors") == 0
        for engine in engines:
            engine.send_signal(signal.SIGCONT)

        assert [ask.result().status_code for ask in asks] == [200, 200]
        assert sum(gateway.engine_stats("vectors", i)["requests"] for i in range(2)) == 2


def model_of(rows: list[tuple[ReplicaState, int, bool, int, Circuit]]) -> Model:
    spec = {"engine": "fake", "kind": "chat", "concurrency": 3, "replicas": max(1, len(rows))}
    pool = PoolSpec.model_validate({"models": {"talk": spec}})
    model = models_of(pool, ENGINES, Path())["talk"]
    for one, (state, in_flight, suspect, missed, circuit) in zip(
        model.replica_slots, rows, strict=True
    ):
        one.set_replica(replace(one.replica, state=state, missed=missed))
        for _ in range(in_flight):
            one.acquire()
        one.set_suspect(suspect)
        one.set_breaker(Breaker(circuit, retry_at_s=time.monotonic() + 60, trials=2))
    return model


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from([ReplicaState.READY, ReplicaState.STARTING, ReplicaState.FAILED]),
            st.integers(0, 4),
            st.booleans(),
            st.integers(0, 1),
            st.sampled_from(list(Circuit)),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_the_queue_and_the_router_agree_on_free_slots(
    rows: list[tuple[ReplicaState, int, bool, int, Circuit]],
) -> None:
    model = model_of(rows)

    room, index = model.has_room(0), model.choose()

    assert room == (index is not None)
    assert index is None or model.replica_slots[index].in_flight < 3


def create_key_headers(gateway: Any, tenant: str, **limits: int) -> dict[str, str]:
    """The headers of a new key of ``tenant``."""
    wanted = {"tenant": tenant, "scopes": ["infer", "read"], "limits": limits}
    made = gateway.client.post("/pool/keys", json=wanted).json()
    return {"Authorization": f"Bearer {made['key']}"}


def post_chat(gateway: Any, content: str, headers: dict[str, str], **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": content}]
    body = {"model": "talk", "messages": messages, "max_tokens": 1}
    found: httpx.Response = gateway.client.post(CHAT, json=body, headers=headers, **more)
    return found


def tokens_used(gateway: Any, headers: dict[str, str]) -> int:
    lines = gateway.client.get("/v1/usage", headers=headers).json()["data"]
    return sum(line["total_tokens"] for line in lines)


@contextlib.contextmanager
def busy(gateway: Any) -> Iterator[None]:
    """The only replica serves a stream that does not end."""
    body = {"model": "talk", "stream": True, "messages": [{"role": "user", "content": "slow"}]}
    with gateway.client.stream("POST", CHAT, json=body) as answer:
        events = answer.iter_bytes()  # without a reference the client would disconnect
        next(events)
        yield


@pytest.mark.parametrize(
    ("model", "headers", "status"),
    [
        ({"queue_max": 0}, {}, 429),
        ({"queue_timeout_s": 0.05}, {}, 429),
        ({"policy": "slo"}, {"x-sage-deadline-ms": "1"}, 504),
    ],
)
def test_a_request_rejected_by_the_queue_is_not_charged_and_reserves_no_tokens(
    start: Any, fake: Any, model: dict[str, Any], headers: dict[str, str], status: int
) -> None:
    with start({"talk": fake(concurrency=1, **model)}) as gateway:
        own = create_key_headers(gateway, "acme", tokens_per_day=300)
        with busy(gateway):
            ends = [post_chat(gateway, "echo hi", own | headers) for _ in range(5)]
        gateway.until(lambda: post_chat(gateway, "echo hi", own).status_code == 200)

        assert {end.status_code for end in ends} == {status}
        assert "insufficient_quota" not in {end.json()["error"]["code"] for end in ends}
        assert tokens_used(gateway, own) == CHAT_COSTS


def test_a_request_cancelled_in_the_queue_is_not_charged_and_reserves_no_tokens(
    start: Any, fake: Any
) -> None:
    with start({"talk": fake(concurrency=1)}) as gateway:
        own = create_key_headers(gateway, "acme", tokens_per_day=300)
        with busy(gateway):
            for _ in range(3):
                with pytest.raises(httpx.ReadTimeout):
                    post_chat(gateway, "echo hi", own, timeout=0.2)
            gateway.until(lambda: gateway.pool.models["talk"].queue.outcomes["cancelled"] == 3)
        gateway.until(lambda: post_chat(gateway, "echo hi", own).status_code == 200)

        assert tokens_used(gateway, own) == CHAT_COSTS


def test_fair_shares_use_the_tenant_of_the_key_and_ignore_the_header(
    start: Any, fake: Any, callers: ThreadPoolExecutor
) -> None:
    with start({"talk": fake(concurrency=1, policy="fair")}) as gateway:
        many, one = create_key_headers(gateway, "many"), create_key_headers(gateway, "one")
        order: list[str] = []

        def ask(name: str, headers: dict[str, str]) -> None:
            assert post_chat(gateway, "sleep 0.1", headers).status_code == 200
            order.append(name)

        with busy(gateway):
            asks = []
            for i in range(4):
                asks.append(callers.submit(ask, "many", many | {"x-sage-tenant": f"other {i}"}))
                gateway.until(lambda: waiting(gateway) == len(asks))
            asks.append(callers.submit(ask, "one", one))
            gateway.until(lambda: waiting(gateway) == 5)
        for done in asks:
            done.result()

    assert order == ["many", "one", "many", "many", "many"]
