"""An equal request may get the answer of an earlier one, if its header says so."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from redis_server import redis_server

CHAT = "/v1/chat/completions"
KEEP = {"x-sage-cache": "ttl=60"}


def asked(
    gateway: Any, content: str = "echo hi", headers: dict[str, str] = KEEP, **more: Any
) -> httpx.Response:
    messages = [{"role": "user", "content": content}]
    body = {"model": "talk", "messages": messages, **more}
    found: httpx.Response = gateway.client.post(CHAT, json=body, headers=headers)
    return found


def mark(answer: httpx.Response) -> str | None:
    assert answer.status_code == 200
    return answer.headers.get("x-sage-cache")


def key_of(gateway: Any, tenant: str, cache_ttl_s: int = 0, **limits: int) -> dict[str, str]:
    wanted = {"tenant": tenant, "limits": limits, "cache_ttl_s": cache_ttl_s}
    wanted["scopes"] = ["infer", "read"]
    made = gateway.client.post("/pool/keys", json=wanted).json()
    return {"Authorization": f"Bearer {made['key']}"}


def test_an_equal_request_is_answered_without_the_engine(gateway: Any) -> None:
    before = gateway.seen()["requests"]

    first = asked(gateway, "echo equal", temperature=0)
    second = asked(gateway, "echo equal", temperature=0)

    assert (mark(first), mark(second)) == ("miss", "hit")
    assert first.content == second.content
    assert gateway.seen()["requests"] == before + 1
    text = gateway.client.get("/metrics").text
    assert 'sage_gateway_cache_total{outcome="hit"}' in text


def test_the_order_of_fields_and_blanks_make_no_other_request(gateway: Any) -> None:
    one = b'{"model": "talk", "seed": 7, "messages": [{"role": "user", "content": "echo order"}]}'
    two = b'{"messages":[{"content":"echo order","role":"user"}],"seed":7,"model":"talk"}'

    marks = [mark(gateway.client.post(CHAT, content=b, headers=KEEP)) for b in (one, two)]

    assert marks == ["miss", "hit"]


def test_another_body_tenant_or_route_is_another_request(gateway: Any) -> None:
    assert mark(asked(gateway, "echo other")) == "miss"
    acme = key_of(gateway, "acme")

    assert mark(asked(gateway, "echo other", seed=1)) == "miss"
    assert mark(asked(gateway, "echo other", headers=KEEP | acme)) == "miss"
    assert mark(asked(gateway, "echo other", headers=KEEP | acme)) == "hit"
    assert mark(asked(gateway, "echo other", headers=KEEP | key_of(gateway, "acme"))) == "hit"


def test_who_does_not_ask_for_it_gets_an_answer_of_their_own(gateway: Any) -> None:
    assert mark(asked(gateway, "echo mine")) == "miss"
    before = gateway.seen()["requests"]

    assert mark(asked(gateway, "echo mine", headers={})) is None
    assert gateway.seen()["requests"] == before + 1


def test_embeddings_are_kept_and_streams_and_errors_are_not(gateway: Any) -> None:
    body = {"model": "vectors", "input": ["kept"]}
    marks = [mark(gateway.client.post("/v1/embeddings", json=body, headers=KEEP)) for _ in range(2)]
    before = gateway.seen()["requests"]

    assert marks == ["miss", "hit"]
    for _ in range(2):
        assert mark(asked(gateway, "echo streamed", stream=True)) is None
        assert asked(gateway, "status 400").status_code == 400
    assert gateway.seen()["requests"] == before + 4


def test_a_kept_answer_ends_with_its_time(gateway: Any) -> None:
    brief = {"x-sage-cache": "ttl=1"}
    assert mark(asked(gateway, "echo brief", headers=brief)) == "miss"

    gateway.until(lambda: mark(asked(gateway, "echo brief", headers=brief)) == "miss", 5)


def test_a_hit_costs_nothing(gateway: Any) -> None:
    own = key_of(gateway, "thrifty", tokens_per_day=400)
    for _ in range(200):
        assert asked(gateway, "echo cheap", headers=KEEP | own, max_tokens=1).status_code == 200

    usage = gateway.client.get("/v1/usage", headers=own).json()["data"]
    assert [line["requests"] for line in usage] == [1]


def test_a_key_may_ask_for_it_where_there_is_one_likely_answer(gateway: Any) -> None:
    own = key_of(gateway, "certain", cache_ttl_s=60)

    cold = [mark(asked(gateway, "echo sure", own, temperature=0)) for _ in range(2)]
    warm = [mark(asked(gateway, "echo sure", own, temperature=0.7)) for _ in range(2)]
    plain = [mark(asked(gateway, "echo sure", own)) for _ in range(2)]

    assert (cold, warm, plain) == (["miss", "hit"], [None, None], [None, None])


@pytest.mark.parametrize("wrong", ["", "on", "ttl=0", "ttl=-1", "ttl=100000", "ttl=1.5", "ttl=x"])
def test_a_header_that_says_something_else_is_a_400(gateway: Any, wrong: str) -> None:
    answer = asked(gateway, headers={"x-sage-cache": wrong})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-sage-cache"


@pytest.mark.service
def test_two_gateways_with_one_redis_share_what_they_keep(
    start: Any, fake: Any, tmp_path: Path
) -> None:
    with redis_server(tmp_path) as url:
        shared = {"ledger": {"store": "redis", "url": url}}
        with (
            start({"talk": fake()}, pool=shared) as one,
            start({"talk": fake()}, pool=shared) as two,
        ):
            assert mark(asked(one, "echo shared")) == "miss"
            assert mark(asked(two, "echo shared")) == "hit"
            assert two.seen()["requests"] == 0


@pytest.mark.service
def test_a_redis_that_goes_away_costs_no_request(start: Any, fake: Any, tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        gone = {"ledger": {"store": "redis", "url": url}}
        with start({"talk": fake()}, pool=gone) as gateway:
            assert mark(asked(gateway)) == "miss"
            stop_redis(url)
            assert [asked(gateway).status_code for _ in range(5)] == [200] * 5


def stop_redis(url: str) -> None:
    import redis

    with redis.Redis.from_url(url) as client:
        client.shutdown(nosave=True)
