"""Response cache: a request that accepts it gets the answer to an earlier, equal request."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from redis_server import redis_server

CHAT = "/v1/chat/completions"
KEEP = {"x-sage-cache": "ttl=60"}


def send(
    gateway: Any, content: str = "echo hi", headers: dict[str, str] = KEEP, **more: Any
) -> httpx.Response:
    messages = [{"role": "user", "content": content}]
    body = {"model": "talk", "messages": messages, **more}
    found: httpx.Response = gateway.client.post(CHAT, json=body, headers=headers)
    return found


def cache_header(answer: httpx.Response) -> str | None:
    assert answer.status_code == 200
    return answer.headers.get("x-sage-cache")


def key_of(gateway: Any, tenant: str, cache_ttl_s: int = 0, **limits: int) -> dict[str, str]:
    wanted = {"tenant": tenant, "limits": limits, "cache_ttl_s": cache_ttl_s}
    wanted["scopes"] = ["infer", "read"]
    made = gateway.client.post("/pool/keys", json=wanted).json()
    return {"Authorization": f"Bearer {made['key']}"}


def test_an_equal_request_is_answered_without_the_engine(gateway: Any) -> None:
    before = gateway.engine_stats()["requests"]

    first = send(gateway, "echo equal", temperature=0)
    second = send(gateway, "echo equal", temperature=0)

    assert (cache_header(first), cache_header(second)) == ("miss", "hit")
    assert first.content == second.content
    assert gateway.engine_stats()["requests"] == before + 1
    text = gateway.client.get("/metrics").text
    assert 'sage_gateway_cache_total{outcome="hit"}' in text


def test_requests_that_differ_in_field_order_or_blanks_are_equal(gateway: Any) -> None:
    one = b'{"model": "talk", "seed": 7, "messages": [{"role": "user", "content": "echo order"}]}'
    two = b'{"messages":[{"content":"echo order","role":"user"}],"seed":7,"model":"talk"}'

    marks = [cache_header(gateway.client.post(CHAT, content=b, headers=KEEP)) for b in (one, two)]

    assert marks == ["miss", "hit"]


def test_requests_that_differ_in_body_tenant_or_route_are_not_equal(gateway: Any) -> None:
    assert cache_header(send(gateway, "echo other")) == "miss"
    acme = key_of(gateway, "acme")

    assert cache_header(send(gateway, "echo other", seed=1)) == "miss"
    assert cache_header(send(gateway, "echo other", headers=KEEP | acme)) == "miss"
    assert cache_header(send(gateway, "echo other", headers=KEEP | acme)) == "hit"
    assert (
        cache_header(send(gateway, "echo other", headers=KEEP | key_of(gateway, "acme"))) == "hit"
    )


def test_a_request_without_the_header_goes_to_the_engine(gateway: Any) -> None:
    assert cache_header(send(gateway, "echo mine")) == "miss"
    before = gateway.engine_stats()["requests"]

    assert cache_header(send(gateway, "echo mine", headers={})) is None
    assert gateway.engine_stats()["requests"] == before + 1


def test_embeddings_are_cached_but_streams_and_errors_are_not(gateway: Any) -> None:
    body = {"model": "vectors", "input": ["kept"]}
    marks = [
        cache_header(gateway.client.post("/v1/embeddings", json=body, headers=KEEP))
        for _ in range(2)
    ]
    before = gateway.engine_stats()["requests"]

    assert marks == ["miss", "hit"]
    for _ in range(2):
        assert cache_header(send(gateway, "echo streamed", stream=True)) is None
        assert send(gateway, "status 400").status_code == 400
    assert gateway.engine_stats()["requests"] == before + 4


def embed(
    gateway: Any, *texts: str, headers: dict[str, str] = KEEP
) -> tuple[str | None, list[list[float]]]:
    body = {"model": "vectors", "input": texts}
    answer = gateway.client.post("/v1/embeddings", json=body, headers=headers)
    mark = cache_header(answer)
    return mark, [row["embedding"] for row in answer.json()["data"]]


def test_texts_with_known_vectors_are_neither_embedded_nor_charged(gateway: Any) -> None:
    own = key_of(gateway, "reader")
    first, (one, other) = embed(gateway, "known one", "known other", headers=KEEP | own)
    before = usage_of(gateway, own)

    second, found = embed(gateway, "known other", "unknown", "known one", headers=KEEP | own)
    alone, [new] = embed(gateway, "unknown", headers=KEEP | own)

    assert (first, second, alone) == ("miss", "partial", "hit")
    assert found == [pytest.approx(vector, abs=1e-6) for vector in (other, new, one)]
    charged = usage_of(gateway, own) - before
    assert 0 < charged < before


def usage_of(gateway: Any, key: dict[str, str]) -> int:
    lines = gateway.client.get("/v1/usage", headers=key).json()["data"]
    return sum(line["prompt_tokens"] for line in lines)


def test_known_vectors_outlive_the_gateway_and_not_the_arguments_of_their_model(
    start: Any, fake: Any, tmp_path: Path
) -> None:
    models = {"vectors": fake("embedding")}
    with start(models, home=tmp_path) as gateway:
        marks = [embed(gateway, "kept")[0]]
    with start(models, home=tmp_path) as gateway:
        marks.append(embed(gateway, "kept")[0])
        assert gateway.engine_stats("vectors")["requests"] == 0
    with start({"vectors": fake("embedding", context_tokens=64)}, home=tmp_path) as gateway:
        marks.append(embed(gateway, "kept")[0])

    assert marks == ["miss", "hit", "miss"]


def test_a_cached_answer_expires_after_its_ttl(gateway: Any) -> None:
    brief = {"x-sage-cache": "ttl=1"}
    assert cache_header(send(gateway, "echo brief", headers=brief)) == "miss"

    gateway.until(lambda: cache_header(send(gateway, "echo brief", headers=brief)) == "miss", 5)


def test_a_cache_hit_is_not_charged(gateway: Any) -> None:
    own = key_of(gateway, "thrifty", tokens_per_day=400)
    for _ in range(200):
        assert send(gateway, "echo cheap", headers=KEEP | own, max_tokens=1).status_code == 200

    usage = gateway.client.get("/v1/usage", headers=own).json()["data"]
    assert [line["requests"] for line in usage] == [1]


def test_a_key_may_accept_cached_answers_to_deterministic_requests(gateway: Any) -> None:
    own = key_of(gateway, "certain", cache_ttl_s=60)

    cold = [cache_header(send(gateway, "echo sure", own, temperature=0)) for _ in range(2)]
    warm = [cache_header(send(gateway, "echo sure", own, temperature=0.7)) for _ in range(2)]
    plain = [cache_header(send(gateway, "echo sure", own)) for _ in range(2)]

    assert (cold, warm, plain) == (["miss", "hit"], [None, None], [None, None])


@pytest.mark.parametrize(
    "wrong", ["", "on", "ttl=0", "ttl=-1", "ttl=100000000", "ttl=1.5", "ttl=x"]
)
def test_an_invalid_cache_header_is_a_400(gateway: Any, wrong: str) -> None:
    answer = send(gateway, headers={"x-sage-cache": wrong})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "x-sage-cache"


@pytest.mark.service
def test_two_gateways_with_one_redis_share_the_cache(start: Any, fake: Any, tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        shared = {"ledger": {"store": "redis", "url": url}}
        with (
            start({"talk": fake()}, pool=shared) as one,
            start({"talk": fake()}, pool=shared) as two,
        ):
            assert cache_header(send(one, "echo shared")) == "miss"
            assert cache_header(send(two, "echo shared")) == "hit"
            assert two.engine_stats()["requests"] == 0


@pytest.mark.service
def test_losing_the_redis_fails_no_request(start: Any, fake: Any, tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        options = {"ledger": {"store": "redis", "url": url}}
        with start({"talk": fake()}, pool=options) as gateway:
            assert cache_header(send(gateway)) == "miss"
            stop_redis(url)
            assert [send(gateway).status_code for _ in range(5)] == [200] * 5


def stop_redis(url: str) -> None:
    import redis

    with redis.Redis.from_url(url) as client:
        client.shutdown(nosave=True)
