"""Limits, budgets and usage as clients see them; the engine reports 3 + 2 tokens per chat."""

import json
import sqlite3
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from gateway_process import gateway_process

from sage_gateway.scheduling.queued_request import expected_tokens

CHAT = "/v1/chat/completions"
#: Tokens of a chat of the fake engine, and the maximum with `max_tokens` 1.
USED = 5


class TenantClient:
    """A client with its own key."""

    def __init__(self, client: httpx.Client, **wanted: Any) -> None:
        usual = {"tenant": "acme", "scopes": ["infer", "read"]}
        made = client.post("/pool/keys", json=usual | wanted)
        assert made.status_code == 201, made.text
        self.id, self.key = made.json()["id"], made.json()["key"]
        self._client = client

    def chat(self, content: str = "echo hi", **more: Any) -> httpx.Response:
        headers = more.pop("headers", {})
        messages = [{"role": "user", "content": content}]
        body = {"model": "talk", "messages": messages, "max_tokens": 1} | more
        return self.post(CHAT, body, headers)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        auth = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        return self._client.post(path, json=body, headers=auth)

    def usage(self) -> list[dict[str, Any]]:
        auth = {"Authorization": f"Bearer {self.key}"}
        lines = self._client.get("/v1/usage", headers=auth).json()["data"]
        return [line for line in lines if line["key"] == self.id]

    def spent_tokens(self) -> int:
        return sum(line["total_tokens"] for line in self.usage())


def error_of(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["error"]
    return found


def until(wanted: Callable[[], bool]) -> None:
    end = time.monotonic() + 45
    while not wanted():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def test_requests_beyond_the_rate_limit_get_a_retry_after(gateway: Any) -> None:
    caller = TenantClient(gateway.client, limits={"requests_per_minute": 3})

    began = time.monotonic()
    answers = [caller.chat() for _ in range(4)]
    took_s = time.monotonic() - began

    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    assert error_of(answers[3])["code"] == "rate_limit_exceeded"
    assert error_of(answers[3])["type"] == "rate_limit_error"
    assert 19 - took_s <= int(answers[3].headers["retry-after"]) <= 20  # 3 a minute


def test_the_token_rate_counts_actual_usage_not_the_estimate(gateway: Any) -> None:
    caller = TenantClient(gateway.client, limits={"tokens_per_minute": 150})

    answers = []
    for _ in range(12):
        answers.append(caller.chat(max_tokens=100).status_code)
        time.sleep(0.01)  # a rate is corrected just after the answer

    assert answers[0] == 200
    assert 3 <= answers.count(200) <= 12
    refused = caller.chat(max_tokens=148)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1


def test_a_budget_is_never_exceeded_and_its_error_has_openais_schema(gateway: Any) -> None:
    caller = TenantClient(gateway.client, limits={"tokens_per_day": 400})

    with ThreadPoolExecutor(8) as many:
        answers = list(many.map(lambda _: caller.chat(), range(100)))
    answered = [a for a in answers if a.status_code == 200]
    refused = [a for a in answers if a.status_code == 429]

    assert len(answered) + len(refused) == 100
    assert caller.spent_tokens() == USED * len(answered) <= 400
    assert answered
    assert {error_of(a)["code"] for a in refused} == {"insufficient_quota"}
    assert {error_of(a)["type"] for a in refused} == {"insufficient_quota"}
    assert all(int(a.headers["retry-after"]) >= 1 for a in refused)


def test_the_official_client_raises_its_rate_limit_error(gateway: Any) -> None:
    caller = TenantClient(gateway.client, limits={"tokens_per_month": 10})
    ask: Any = {"model": "talk", "messages": [{"role": "user", "content": "echo hi"}]}

    url = f"{gateway.url}/v1"
    client = openai.OpenAI(base_url=url, api_key=caller.key, max_retries=0)
    with pytest.raises(openai.RateLimitError) as caught, client:
        client.chat.completions.create(**ask)

    assert caught.value.code == "insufficient_quota"


def test_a_tenants_budget_is_shared_by_its_keys(start: Any, fake: Any) -> None:
    pool = {"tenants": {"acme": {"tokens_per_day": 200}}}
    with start({"talk": fake()}, pool=pool) as gateway:
        one, other = TenantClient(gateway.client), TenantClient(gateway.client)
        stranger = TenantClient(gateway.client, tenant="zeta")

        while one.chat().status_code == 200:
            pass

        assert other.chat().status_code == 429
        assert "tenant acme" in error_of(other.chat())["message"]
        assert stranger.chat().status_code == 200
        named = {"headers": {"x-sage-tenant": "acme"}}
        assert stranger.chat(**named).status_code == 200
        body = {"model": "talk", "messages": [{"role": "user", "content": "echo hi"}]}
        job = gateway.client.post(CHAT, json=body, headers={"x-sage-tenant": "acme"})
        assert error_of(job)["code"] == "insufficient_quota"


def test_a_replayed_answer_is_free_even_when_the_budget_is_used_up(
    gateway: Any,
) -> None:
    caller = TenantClient(gateway.client, limits={"tokens_per_day": 200})
    auth = {"headers": {"x-request-id": uuid.uuid4().hex}}
    first = caller.chat(**auth)
    while caller.chat().status_code == 200:
        pass
    spent = caller.spent_tokens()

    again = caller.chat(**auth)

    assert again.headers["x-sage-ledger"] == "hit"
    assert again.content == first.content
    assert caller.spent_tokens() == spent


@pytest.mark.parametrize("content", ["status 500", "overflow"])
def test_a_failure_of_the_engine_is_not_charged(gateway: Any, content: str) -> None:
    caller = TenantClient(gateway.client, limits={"tokens_per_day": 200})

    for _ in range(5):
        assert caller.chat(content).status_code in (400, 502)

    assert caller.chat().status_code == 200
    assert caller.spent_tokens() == USED


def test_a_stream_without_usage_is_charged_one_token_per_event(gateway: Any) -> None:
    caller = TenantClient(gateway.client, limits={"tokens_per_day": 10_000})

    caller.chat("echo a b c", stream=True, max_tokens=50)

    (line,) = caller.usage()
    assert line["completion_tokens"] == 3
    assert 10 <= line["prompt_tokens"] <= 40


def test_a_disconnected_stream_is_charged_for_the_events_so_far(gateway: Any) -> None:
    caller = TenantClient(gateway.client, limits={"tokens_per_day": 100_000})
    auth = {"Authorization": f"Bearer {caller.key}"}
    body = {"model": "talk", "stream": True, "messages": [{"role": "user", "content": "slow"}]}

    with gateway.client.stream("POST", CHAT, json=body, headers=auth) as answer:
        lines = answer.iter_lines()
        for _ in range(20):
            next(lines)
    until(lambda: caller.spent_tokens() > 0)

    (line,) = caller.usage()
    assert 10 <= line["completion_tokens"] < 500
    assert caller.chat().status_code == 200


def test_a_disconnect_before_the_answer_is_charged_for_one_token_and_releases_the_hold(
    gateway: Any,
) -> None:
    caller = TenantClient(gateway.client, limits={"tokens_per_day": 200})
    auth = {"Authorization": f"Bearer {caller.key}"}
    messages = [{"role": "user", "content": "sleep 30"}]
    ask = {"model": "talk", "messages": messages, "max_tokens": 1}

    with pytest.raises(httpx.ReadTimeout):
        httpx.post(gateway.url + CHAT, json=ask, headers=auth, timeout=0.3, verify=False)
    until(lambda: caller.chat().status_code == 200)

    longest = expected_tokens(len(json.dumps(ask)), answer_tokens_max=1)
    assert USED <= caller.spent_tokens() <= USED + longest


def test_usage_by_key_model_and_job_is_visible_to_its_tenant_and_to_admins(gateway: Any) -> None:
    caller = TenantClient(gateway.client, tenant="one")
    stranger = TenantClient(gateway.client, tenant="two")
    caller.chat(headers={"x-sage-job": "ingest"})
    caller.chat(model="other-name", headers={"x-sage-job": "ingest"})
    caller.post("/v1/embeddings", {"model": "vectors", "input": ["a", "b"]})
    stranger.chat()

    lines = {(line["model"], line["job"]): line for line in caller.usage()}
    every = gateway.client.get("/v1/usage").json()["data"]
    auth = {"Authorization": f"Bearer {caller.key}"}
    mine = gateway.client.get("/v1/usage", headers=auth).json()["data"]

    assert set(lines) == {("talk", "ingest"), ("vectors", "")}
    counts = [lines["talk", "ingest"][f"{n}_tokens"] for n in ("prompt", "completion", "total")]
    assert counts == [6, 4, 10]
    assert lines["talk", "ingest"]["requests"] == 2
    assert lines["vectors", ""]["prompt_tokens"] == 2
    assert {line["tenant"] for line in mine} == {"one"}
    assert {caller.id, stranger.id} <= {line["key"] for line in every}


def test_the_days_of_usage_are_checked(gateway: Any) -> None:
    def get_usage(**days: str) -> httpx.Response:
        found: httpx.Response = gateway.client.get("/v1/usage", params=days)
        return found

    assert get_usage(since="2026-01-01", until="2026-01-31").json()["data"] == []
    assert get_usage(since="2026-02-01", until="2026-01-31").status_code == 400
    assert get_usage(since="2020-02-01", until="2026-01-31").status_code == 400
    assert get_usage(since="yesterday").status_code == 400


@pytest.mark.parametrize("field", ["max_tokens", "n", "n_predict"])
def test_a_field_that_bounds_the_cost_is_type_checked(gateway: Any, field: str) -> None:
    answer = TenantClient(gateway.client).chat(**{field: "1"})

    assert answer.status_code == 400
    assert field in error_of(answer)["message"]


def test_spending_survives_kill_9(tmp_path: Path, fake: Any) -> None:
    with gateway_process(tmp_path, {"talk": fake()}) as (process, client):
        caller = TenantClient(client, limits={"tokens_per_day": 200})
        answered = [caller.chat().status_code for _ in range(5)].count(200)
        process.kill()

    with gateway_process(tmp_path, {"talk": fake()}) as (_, client):
        caller._client = client
        spent = caller.spent_tokens()
        while caller.chat().status_code == 200:
            answered += 1

        assert spent == 5 * USED
        assert caller.spent_tokens() == answered * USED <= 200


def test_spending_while_the_file_is_locked_survives_kill_9(tmp_path: Path, fake: Any) -> None:
    with gateway_process(tmp_path, {"talk": fake()}) as (process, client):
        budget = TenantClient(client, limits={"tokens_per_day": 1000})
        file = tmp_path / "data" / "gateway" / "tenants.sqlite"
        with closing(sqlite3.connect(file)) as other:
            other.execute("BEGIN EXCLUSIVE")
            answered = [budget.chat().status_code for _ in range(3)]
            process.kill()
            process.wait()
            other.rollback()

    with gateway_process(tmp_path, {"talk": fake()}) as (_, client):
        budget._client = client

        assert answered == [200, 200, 200]
        assert budget.spent_tokens() == 3 * USED
