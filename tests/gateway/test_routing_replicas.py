"""Several replicas of one model, some of them failing: what clients observe."""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from sage_gateway.replicas.circuit_breaker import RUN_MAX, Circuit
from sage_gateway.replicas.lifecycle import ReplicaState
from sage_gateway.routing import Candidate, RoutingHints
from sage_gateway.routing.rendezvous import choose

RARELY = {"interval_s": 60, "timeout_s": 1}  # no health check interferes


def member(gateway: Any, replica: int = 0, model: str = "talk") -> Any:
    return gateway.pool.models[model].replica_slots[replica]


@contextlib.contextmanager
def hang_engine(of: Any) -> Iterator[None]:
    """The engine hangs: it takes connections and does not answer."""
    process = of.process
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)


def all_ready(gateway: Any) -> bool:
    return all(m.ready() == len(m.replica_slots) for m in gateway.pool.models.values())


def request_counts(gateway: Any, replicas: int, model: str = "talk") -> list[int]:
    return [gateway.engine_stats(model, i)["requests"] for i in range(replicas)]


def embed(gateway: Any, text: str = "x", **headers: str) -> httpx.Response:
    body = {"model": "vectors", "input": text}
    answer: httpx.Response = gateway.client.post("/v1/embeddings", json=body, headers=headers)
    return answer


def talk(gateway: Any, session: str) -> httpx.Response:
    body = {"model": "talk", "messages": [{"role": "user", "content": "echo hi"}]}
    answer: httpx.Response = gateway.client.post(
        "/v1/chat/completions", json=body, headers={"x-session-id": session}
    )
    return answer


def session_of_first_replica() -> str:
    """A session of the first replica, while that is healthy."""
    both = [Candidate(i, ReplicaState.READY, 0) for i in range(2)]
    return next(str(n) for n in range(99) if choose(both, RoutingHints(b"%d" % n), None) == 0)


def test_killing_one_of_two_replicas_fails_no_request_under_load(start: Any, fake: Any) -> None:
    with start({"talk": fake(replicas=2)}) as gateway:
        gateway.until(lambda: all_ready(gateway))
        with ThreadPoolExecutor(8) as callers:
            asks = [callers.submit(gateway.chat, f"sleep 0.0{i % 5}") for i in range(120)]
            gateway.until(lambda: member(gateway).in_flight > 0)
            os.kill(member(gateway).process.pid, signal.SIGKILL)
            ends = Counter(ask.result().status_code for ask in asks)

    assert ends == {200: 120}


def test_a_hung_replica_of_two_fails_no_request(
    start: Any, fake: Any, hung_early: dict[str, float]
) -> None:
    with start({"talk": fake(replicas=2, health=hung_early)}) as gateway:
        gateway.until(lambda: all_ready(gateway))
        with hang_engine(member(gateway)), ThreadPoolExecutor(8) as callers:
            asks = [callers.submit(gateway.chat, "echo hi") for _ in range(80)]
            ends = Counter(ask.result().status_code for ask in asks)

    assert ends == {200: 80}


def test_a_hung_engine_never_stalls_another_model(start: Any, fake: Any) -> None:
    models = {"talk": fake(health=RARELY, timeout_s=20), "other": fake()}
    with start(models) as gateway:
        with ThreadPoolExecutor(40) as callers, hang_engine(member(gateway)):
            for _ in range(40):
                callers.submit(gateway.chat, "echo hi")
            gateway.until(lambda: member(gateway).in_flight == 40)
            took_s = []
            for _ in range(40):
                began = time.monotonic()
                assert gateway.chat("echo hi", model="other").status_code == 200
                took_s.append(time.monotonic() - began)

        assert sorted(took_s)[20] < 0.5


def test_a_replica_that_never_answers_is_avoided_and_tried_again_later(
    start: Any, fake: Any
) -> None:
    model = fake(replicas=2, routing="session", health=RARELY, timeout_s=1)
    with start({"talk": model}) as gateway, ThreadPoolExecutor(RUN_MAX) as callers:
        gateway.until(lambda: all_ready(gateway))
        with hang_engine(member(gateway)):
            asks = [
                callers.submit(talk, gateway, session_of_first_replica()) for _ in range(RUN_MAX)
            ]
            first = [ask.result().status_code for ask in asks]
            then = talk(gateway, session_of_first_replica()).status_code
            assert member(gateway).breaker.circuit is Circuit.OPEN

        assert first == [504] * RUN_MAX
        assert then == 200

        def is_closed() -> bool:
            talk(gateway, session_of_first_replica())
            return member(gateway).breaker.circuit is Circuit.CLOSED

        gateway.until(is_closed)
        assert request_counts(gateway, 2)[1] >= 1


def test_requests_that_make_every_engine_fail_open_no_circuit(start: Any, fake: Any) -> None:
    with start({"talk": fake(replicas=2, health=RARELY)}) as gateway:
        gateway.until(lambda: all_ready(gateway))
        slots = gateway.pool.models["talk"].replica_slots
        for _ in range(4 * RUN_MAX):
            assert gateway.chat("status 500").status_code == 502
            assert {slot.breaker.circuit for slot in slots} == {Circuit.CLOSED}

        gateway.until(lambda: not any(slot.verification_due for slot in slots))
        assert gateway.chat("echo hi").status_code == 200


def test_the_circuit_of_an_engine_that_answers_every_request_with_an_error_opens(
    start: Any, fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with start({"talk": fake(replicas=2, health=RARELY, routing="round_robin")}) as gateway:
        gateway.until(lambda: all_ready(gateway))
        while gateway.chat("fail 500").status_code != 502:
            pass
        slot = next(
            slot
            for slot in gateway.pool.models["talk"].replica_slots
            if gateway.engine_stats(replica=slot.index)["requests"]
        )

        def is_open() -> bool:
            gateway.chat("echo hi")
            return slot.breaker.circuit is Circuit.OPEN

        gateway.until(is_open)
        assert f"{slot.replica.name}: circuit closed -> open" in caplog.text
        assert [gateway.chat("echo hi").status_code for _ in range(10)] == [200] * 10


def test_a_refusal_does_not_open_the_circuit(start: Any, fake: Any) -> None:
    with start({"talk": fake()}) as gateway:
        for _ in range(2 * RUN_MAX):
            assert gateway.chat("status 422").status_code == 400
            assert gateway.chat("overflow", stream=True).status_code == 400

        assert member(gateway).breaker.circuit is Circuit.CLOSED
        assert member(gateway).breaker.marks == 0


@pytest.mark.parametrize(
    ("routing", "header"), [("session", "x-session-id"), ("key_group", "x-key-group")]
)
def test_requests_with_the_same_key_are_sent_to_the_same_replica(
    start: Any, fake: Any, routing: str, header: str
) -> None:
    with start({"vectors": fake("embedding", replicas=3, routing=routing)}) as gateway:
        gateway.until(lambda: all_ready(gateway))
        for _ in range(10):
            embed(gateway, **{header: "17"})
        same = request_counts(gateway, 3, "vectors")
        for key in range(30):
            embed(gateway, **{header: str(key)})

        assert sorted(same) == [0, 0, 10]
        assert min(request_counts(gateway, 3, "vectors")) > 0


def test_a_conversation_is_sent_to_the_replica_of_its_prefix(start: Any, fake: Any) -> None:
    with start({"talk": fake(replicas=2, routing="prefix")}) as gateway:
        gateway.until(lambda: all_ready(gateway))
        with ThreadPoolExecutor(1) as other:
            busy = other.submit(gateway.chat, "hold busy")
            gateway.until(lambda: member(gateway).in_flight == 1)
            prompt = "echo " + "a long story " * 40
            for _ in range(5):
                assert gateway.chat(prompt).status_code == 200
                prompt += "and so on " * 10
            assert gateway.chat(prompt, stream=True).status_code == 200
            gateway.release("busy")
            busy.result()
            gateway.chat(prompt)

        assert request_counts(gateway, 2) == [1, 7]


@pytest.mark.parametrize("routing", ["round_robin", "power_of_two"])
def test_requests_without_a_key_are_spread(start: Any, fake: Any, routing: str) -> None:
    with start({"talk": fake(replicas=2, routing=routing)}) as gateway:
        gateway.until(lambda: all_ready(gateway))
        for _ in range(24):
            gateway.chat("echo hi")

        assert min(request_counts(gateway, 2)) >= (12 if routing == "round_robin" else 1)


def test_a_hedged_request_is_answered_by_the_replica_that_is_not_hung(
    start: Any, fake: Any
) -> None:
    model = fake("embedding", replicas=2, health=RARELY, hedge_after_ms=50)
    with start({"vectors": model}) as gateway:
        gateway.until(lambda: all_ready(gateway))
        with hang_engine(member(gateway, 0, "vectors")):
            began = time.monotonic()
            ends = [embed(gateway, f"text {i}").status_code for i in range(5)]
            took_s = time.monotonic() - began
            gateway.until(lambda: member(gateway, 0, "vectors").in_flight == 0)

        assert ends == [200] * 5
        assert took_s < 10  # without a hedge the first one would wait as long as the engine hangs


def test_a_request_that_is_answered_in_time_is_not_hedged(start: Any, fake: Any) -> None:
    model = fake("embedding", replicas=2, hedge_after_ms=5000)
    with start({"vectors": model}) as gateway:
        gateway.until(lambda: all_ready(gateway))
        assert [embed(gateway).status_code for _ in range(10)] == [200] * 10

        assert sum(request_counts(gateway, 2, "vectors")) == 10


def test_a_hedge_without_a_second_replica_waits_for_the_first(start: Any, fake: Any) -> None:
    model = fake("embedding", health=RARELY, hedge_after_ms=10)
    with start({"vectors": model}) as gateway:
        engine = member(gateway, 0, "vectors")
        with ThreadPoolExecutor(1) as caller:
            with hang_engine(engine):
                answer = caller.submit(embed, gateway)
                gateway.until(lambda: engine.in_flight == 1)
                time.sleep(0.2)
            assert answer.result().status_code == 200

        assert request_counts(gateway, 1, "vectors") == [1]


def test_a_disconnect_cancels_both_requests_of_a_hedge(start: Any, fake: Any) -> None:
    model = fake("embedding", replicas=2, health=RARELY, hedge_after_ms=20)
    with start({"vectors": model}) as gateway:
        gateway.until(lambda: all_ready(gateway))
        both = [member(gateway, i, "vectors") for i in range(2)]
        with hang_engine(both[0]), hang_engine(both[1]):
            with gateway.open_call({"model": "vectors", "input": "x"}, "/v1/embeddings"):
                gateway.until(lambda: [m.in_flight for m in both] == [1, 1])
            gateway.until(lambda: [m.in_flight for m in both] == [0, 0], 10.0)
