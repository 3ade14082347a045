"""Models and replicas that are added and removed while the gateway serves."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

LOAD = 8


@pytest.fixture
def pool(start: Any, fake: Any) -> Iterator[Any]:
    """A gateway for this module only, since the tests change its models."""
    with start({"talk": fake(concurrency=2, aliases=["alias"])}) as gateway:
        yield gateway


@contextmanager
def load(gateway: Any, content: str = "sleep 0.02") -> Iterator[Counter[int]]:
    """``LOAD`` clients send requests without a pause during the block: the count of each status."""
    ends: Counter[int] = Counter()
    over = threading.Event()

    def call() -> None:
        while not over.is_set():
            ends[gateway.chat(content).status_code] += 1

    with ThreadPoolExecutor(LOAD) as callers:
        asks = [callers.submit(call) for _ in range(LOAD)]
        try:
            yield ends
        finally:
            over.set()
            for ask in asks:
                ask.result()


def scale(gateway: Any, replicas: int, model: str = "talk") -> httpx.Response:
    path = f"/pool/models/{model}/scale"
    answer: httpx.Response = gateway.client.post(path, json={"replicas": replicas})
    return answer


def replicas(gateway: Any) -> dict[str, Any]:
    return {r["id"]: r for r in gateway.client.get("/pool/replicas").json()["data"]}


def is_settled(gateway: Any, count: int, model: str = "talk") -> bool:
    found = gateway.pool.models[model]
    return found.ready() == len(found.replica_slots) == count


def test_scaling_from_one_to_three_to_one_under_load_fails_no_request(pool: Any) -> None:
    with load(pool) as ends:
        assert scale(pool, 3).json()["wanted"] == 3
        pool.until(lambda: is_settled(pool, 3))
        pids = {r["pid"] for r in replicas(pool).values()}
        busy = lambda: all(m.in_flight for m in pool.pool.models["talk"].replica_slots)  # noqa: E731
        pool.until(busy)
        scale(pool, 1)
        pool.until(lambda: is_settled(pool, 1))
        time.sleep(0.3)
        pool.until(lambda: ends.total() > 50)  # for slow machines

    assert len(pids) == 3
    assert set(ends) == {200}
    assert ends[200] > 50
    assert list(replicas(pool)) == ["talk/0"]


def test_requests_in_flight_at_a_drained_replica_are_answered_completely(pool: Any) -> None:
    scale(pool, 2)
    pool.until(lambda: is_settled(pool, 2))
    with ThreadPoolExecutor(4) as callers:
        asks = [callers.submit(pool.chat, "hold drained") for _ in range(4)]
        pool.until(lambda: [m.in_flight for m in pool.pool.models["talk"].replica_slots] == [2, 2])
        scale(pool, 1)
        states = {name: r["state"] for name, r in replicas(pool).items()}
        pool.release("drained")
        answers = [ask.result().status_code for ask in asks]

    assert states == {"talk/0": "ready", "talk/1": "draining"}
    assert answers == [200] * 4
    pool.until(lambda: is_settled(pool, 1))


def test_a_drained_replica_is_replaced_before_it_stops(pool: Any) -> None:
    old = replicas(pool)["talk/0"]["pid"]
    with load(pool) as ends:
        answer = pool.client.post("/pool/replicas/talk/0/drain")
        assert answer.json() == {"id": "talk/0", "object": "replica", "leaving": True}
        pool.until(lambda: list(replicas(pool)) == ["talk/1"])

    assert set(ends) == {200}
    assert replicas(pool)["talk/1"]["pid"] != old


def test_scaling_to_zero_and_back_answers_queued_requests_first(pool: Any) -> None:
    with ThreadPoolExecutor(6) as callers:
        asks = [callers.submit(pool.chat, "hold scaled") for _ in range(6)]
        pool.until(lambda: len(pool.pool.models["talk"].queue) == 4)
        scale(pool, 0)
        pool.release("scaled")
        answers = [ask.result().status_code for ask in asks]
    pool.until(lambda: is_settled(pool, 0))
    none = pool.chat("echo hi")
    scale(pool, 1)
    pool.until(lambda: is_settled(pool, 1))

    assert answers == [200] * 6
    assert (none.status_code, none.json()["error"]["code"]) == (503, "not_ready")
    assert "sage pool scale talk 1" in none.json()["error"]["message"]
    assert pool.chat("echo hi").status_code == 200


def test_a_model_is_added_changed_and_removed_while_others_serve(pool: Any, fake: Any) -> None:
    with load(pool) as ends:
        added = pool.client.put("/pool/models/org/new:1", json=fake())
        pool.until(lambda: is_settled(pool, 1, "org/new:1"))
        answer = pool.chat("echo there", model="org/new:1")
        before = replicas(pool)["talk/0"]["pid"]
        changed = pool.client.put("/pool/models/talk", json=fake(concurrency=2, slots=8))
        pool.until(lambda: is_settled(pool, 1) and replicas(pool).get("talk/1"))
        removed = pool.client.delete("/pool/models/org/new:1")

    assert (added.status_code, changed.status_code, removed.status_code) == (201, 200, 200)
    assert answer.json()["choices"][0]["message"]["content"] == "there"
    assert set(ends) == {200}
    assert replicas(pool)["talk/1"]["pid"] != before
    assert pool.client.get("/pool/models").json()["data"][0]["spec"]["slots"] == 8
    assert pool.chat("echo there", model="org/new:1").status_code == 404
    assert pool.chat("echo there", model="alias").status_code == 404
    assert [m["id"] for m in pool.client.get("/v1/models").json()["data"]] == ["talk"]


def test_the_replicas_of_a_removed_model_end(pool: Any, fake: Any) -> None:
    pool.client.put("/pool/models/brief", json=fake(replicas=2))
    pool.until(lambda: is_settled(pool, 2, "brief"))
    model = pool.pool.models["brief"]
    engines = [member.process for member in model.replica_slots]
    with ThreadPoolExecutor(1) as caller:
        ask = caller.submit(pool.chat, "hold removed", model="brief")
        pool.until(lambda: any(member.in_flight for member in model.replica_slots))
        busy = next(member for member in model.replica_slots if member.in_flight)
        pool.client.delete("/pool/models/brief")
        httpx.get(busy.url("/release/removed"), timeout=20, verify=False)

        assert ask.result().status_code == 200
    pool.until(lambda: not model.replica_slots)
    assert all(engine.returncode is not None for engine in engines)


def test_models_and_replicas_are_listed_with_their_state(pool: Any) -> None:
    (model,) = pool.client.get("/pool/models").json()["data"]
    replica = replicas(pool)["talk/0"]
    now = {k: replica[k] for k in ("state", "reason", "in_flight", "limit", "restarts", "circuit")}

    assert (model["id"], model["wanted"], model["ready"], model["waiting"]) == ("talk", 1, 1, 0)
    assert model["aliases"] == ["alias"]
    assert now == {
        "state": "ready",
        "reason": "",
        "in_flight": 0,
        "limit": 2,
        "restarts": 0,
        "circuit": "closed",
    }
    assert replica["url"] == f"http://127.0.0.1:{replica['port']}"
    assert httpx.get(f"{replica['url']}/seen", verify=False).json()["pid"] == replica["pid"]
    assert replica["age_s"] >= 0


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("POST", "/pool/models/nope/scale", {"replicas": 1}, 404, "there are talk, vectors"),
        ("POST", "/pool/models/talk/scale", {"replicas": 65}, 400, "replicas: Input should be"),
        ("POST", "/pool/models/talk/scale", {"replicas": -1}, 400, "replicas: Input should be"),
        ("POST", "/pool/models/talk/scale", {"copies": 1}, 400, "replicas: Field required"),
        ("POST", "/pool/replicas/talk/9/drain", None, 404, "there are talk/0, vectors/0"),
        ("DELETE", "/pool/models/nope", None, 404, "there are talk, vectors"),
        ("DELETE", "/pool/models/other-name", None, 409, "is an alias of 'talk'"),
        ("PUT", "/pool/models/bad name", {"engine": "fake", "kind": "chat"}, 400, "pattern"),
        ("PUT", "/pool/models/m", {"engine": "nope", "kind": "chat"}, 400, "is not one of fake"),
        ("PUT", "/pool/models/m", {"engine": "fake"}, 400, "kind: Field required"),
        ("PUT", "/pool/models/m", {"engine": "onnx", "kind": "chat"}, 400, "serves kind embedding"),
        (
            "PUT",
            "/pool/models/m",
            {"engine": "fake", "kind": "chat", "aliases": ["talk"]},
            400,
            "'talk' names two models",
        ),
        (
            "PUT",
            "/pool/models/talk",
            {"engine": "fake", "kind": "chat", "policy": "slo"},
            409,
            "policy of talk cannot be changed while it serves; delete it first",
        ),
    ],
)
def test_an_invalid_change_is_refused_with_the_reason(
    gateway: Any, method: str, path: str, body: Any, status: int, message: str
) -> None:
    answer = gateway.client.request(method, path, json=body)

    assert (answer.status_code, message in answer.json()["error"]["message"]) == (status, True), (
        answer.text
    )
    assert [m["id"] for m in gateway.client.get("/pool/models").json()["data"]] == [
        "talk",
        "vectors",
    ]
