"""Several gateways that share a Redis enforce limits and budgets together."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_process import gateway_process
from redis_server import redis_server
from waiting import wait_until

pytestmark = pytest.mark.service

CHAT = "/v1/chat/completions"
REQUESTS = 600
USED = 5


@pytest.fixture
def shared_store(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Settings of gateways that share one Redis."""
    with redis_server(tmp_path) as url:
        yield {"ledger": {"store": "redis", "url": url, "lease_s": 30.0}}


def create_key(client: httpx.Client, **wanted: Any) -> dict[str, Any]:
    answer = client.post("/pool/keys", json={"tenant": "acme"} | wanted)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def chat(client: httpx.Client, key: str, id_: str = "") -> httpx.Response:
    body = {"model": "talk", "messages": [{"role": "user", "content": "echo hi"}], "max_tokens": 1}
    headers = {"Authorization": f"Bearer {key}"} | ({"x-request-id": id_} if id_ else {})
    return client.post(CHAT, json=body, headers=headers)


def spent_tokens(client: httpx.Client, key_id: str) -> int:
    lines = client.get("/v1/usage").json()["data"]
    return sum(line["total_tokens"] for line in lines if line["key"] == key_id)


def test_a_key_created_at_one_gateway_is_valid_and_revoked_at_the_other(
    start: Any, fake: Any, shared_store: Any
) -> None:
    with (
        start({"talk": fake()}, pool=shared_store) as one,
        start({"talk": fake()}, pool=shared_store) as two,
    ):
        key = create_key(one.client)

        wait_until(lambda: chat(two.client, key["key"]).status_code == 200, 60, "the key at two")
        two.client.delete(f"/pool/keys/{key['id']}")
        wait_until(lambda: chat(one.client, key["key"]).status_code == 401, 60, "its end at one")


def test_rates_and_budgets_count_both_gateways(start: Any, fake: Any, shared_store: Any) -> None:
    with (
        start({"talk": fake()}, pool=shared_store) as one,
        start({"talk": fake()}, pool=shared_store) as two,
    ):
        slow = create_key(one.client, limits={"requests_per_minute": 4})
        poor = create_key(one.client, limits={"tokens_per_day": 200})
        wait_until(lambda: chat(two.client, poor["key"]).status_code != 401, 60, "the key at two")

        answers = [chat(c, slow["key"]).status_code for c in (one.client, two.client) * 3]
        answered = 1
        while chat(one.client, poor["key"]).status_code == 200:
            answered += 1
        refused = chat(two.client, poor["key"])

        assert sorted(answers) == [200] * 4 + [429] * 2
        assert refused.json()["error"]["code"] == "insufficient_quota"
        assert (
            spent_tokens(two.client, poor["id"])
            == spent_tokens(one.client, poor["id"])
            == answered * USED
        )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("budget", [REQUESTS * USED + 20_000, REQUESTS * USED // 2])
def test_spending_equals_the_answers_though_a_gateway_is_killed_midway(
    tmp_path: Path, fake: Any, shared_store: Any, budget: int
) -> None:
    # The survivor waits that long for the calls of the dead one.
    shared_store["ledger"]["lease_s"] = 5
    homes = [tmp_path / "one", tmp_path / "two"]
    for home in homes:
        home.mkdir()
    with (
        gateway_process(homes[0], {"talk": fake()}, **shared_store) as (victim, one),
        gateway_process(homes[1], {"talk": fake()}, **shared_store) as (_, two),
    ):
        key = create_key(two, limits={"tokens_per_day": budget})
        wait_until(
            lambda: one.get("/v1/models", headers=own(key)).status_code == 200, 60, "the key"
        )
        left = threading.Semaphore(REQUESTS // 2)

        def call_in_turn(n: int) -> int:
            if not left.acquire(blocking=False):
                victim.kill()
            return call_until_answered((one, two) if n % 2 else (two, one), key["key"])

        with ThreadPoolExecutor(16) as many:
            used = list(many.map(call_in_turn, range(REQUESTS)))

        assert spent_tokens(two, key["id"]) == sum(used) <= budget
        assert sum(used) > budget // 2 or sum(used) == REQUESTS * USED


def own(key: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {key['key']}"}


def call_until_answered(gateways: tuple[httpx.Client, httpx.Client], key: str) -> int:
    """The tokens of the one answer to this call, sent to both gateways in turn; 0 if refused."""
    id_ = uuid.uuid4().hex
    for n in range(60):
        try:
            answer = chat(gateways[n % 2], key, id_)
        except httpx.TransportError:
            continue
        if answer.status_code == 200:
            tokens: int = answer.json()["usage"]["total_tokens"]
            return tokens
        if answer.status_code == 429:
            return 0
    raise AssertionError("neither gateway answered")
