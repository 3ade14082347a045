"""Idempotency: a call under an id is generated once; the fake engine counts its requests."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import pytest
from repeating_client import CHAT, RepeatingClient, chat, ledger_header, new_id_headers

from sage_flink.common import Settings
from sage_flink.flow import Pool
from sage_gateway.pipelines.served_pipeline import OnDelta, PipelineReply


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["x-request-id", "idempotency-key"])
def test_a_repeated_call_gets_the_same_bytes_without_the_engine(
    caller: RepeatingClient, name: str, stream: bool
) -> None:
    id_headers = {name: uuid.uuid4().hex}

    first = caller.ask("echo one two three", id_headers, stream=stream)
    again = caller.ask("echo one two three", id_headers, stream=stream)

    assert (first.status_code, again.status_code) == (200, 200)
    assert (ledger_header(first), ledger_header(again)) == (None, "hit")
    assert again.content == first.content
    assert again.headers["content-type"] == first.headers["content-type"]
    assert caller.engine_requests() == 1


def test_a_repeated_call_is_coalesced_with_the_call_in_flight(caller: RepeatingClient) -> None:
    id_headers = new_id_headers()

    first = caller.begin("hold coalesced", id_headers)
    caller.gateway.until(lambda: caller.engine_requests() == 1)
    with ThreadPoolExecutor(8) as many:
        asks = [many.submit(caller.ask, "hold coalesced", id_headers) for _ in range(8)]
        caller.until_listeners(1 + 8)
        caller.gateway.release("coalesced")
    joined = [ask.result() for ask in asks]

    assert {answer.content for answer in joined} == {first.result().content}
    assert {ledger_header(answer) for answer in joined} == {"joined"}
    assert caller.engine_requests() == 1


def test_a_client_that_joins_a_stream_gets_it_from_the_start_and_then_live(
    start: Any, fake: Any
) -> None:
    with start({"talk": fake()}) as gateway:
        caller, id_headers, body = (
            RepeatingClient(gateway),
            new_id_headers(),
            chat("slow", stream=True),
        )
        with gateway.client.stream("POST", CHAT, content=body, headers=id_headers) as first:
            lines = first.iter_lines()
            started = [next(lines) for _ in range(40)]
            with gateway.client.stream("POST", CHAT, content=body, headers=id_headers) as joiner:
                late = joiner.iter_lines()
                assert [next(late) for _ in range(40)] == started
                assert [next(late) for _ in range(20)] == [next(lines) for _ in range(20)]

        assert joiner.headers["x-sage-ledger"] == "joined"
        assert caller.engine_requests() == 1


def test_another_body_under_an_idempotency_key_is_a_422_in_openais_schema(
    caller: RepeatingClient,
) -> None:
    id_headers = {"idempotency-key": "order 66"}

    caller.ask("echo mine", id_headers)
    other = caller.ask("echo yours", id_headers)
    running = caller.begin("sleep 0.5", {"idempotency-key": "order 67"})
    caller.gateway.until(lambda: caller.engine_requests() == 2)
    beside = caller.ask("echo yours", {"idempotency-key": "order 67"})

    assert (other.status_code, beside.status_code) == (422, 422)
    assert other.json()["error"]["code"] == "idempotency_key_reused"
    assert set(other.json()["error"]) == {"message", "type", "param", "code"}
    assert running.result().status_code == 200
    assert caller.engine_requests() == 2


def test_another_body_under_a_request_id_is_another_call(caller: RepeatingClient) -> None:
    name = uuid.uuid4().hex
    id_headers = {"x-request-id": name, "idempotency-key": name}

    answers = [caller.ask(f"echo {n}", id_headers) for n in (1, 2, 1)]

    contents = [a.json()["choices"][0]["message"]["content"] for a in answers]
    assert contents == ["1", "2", "1"]
    assert [ledger_header(a) for a in answers] == [None, None, "hit"]


def test_a_constant_request_id_does_not_make_calls_idempotent(caller: RepeatingClient) -> None:
    for _ in range(2):
        assert ledger_header(caller.ask("echo hi", {"x-request-id": "constant"})) is None

    assert caller.engine_requests() == 2


def test_another_api_key_tenant_or_path_never_gets_the_answer(caller: RepeatingClient) -> None:
    id_headers = new_id_headers()
    caller.ask("echo hi", id_headers)

    key = caller.gateway.client.post("/pool/keys", json={"tenant": "acme"}).json()["key"]
    other_key = caller.ask("echo hi", {**id_headers, "authorization": f"Bearer {key}"})
    tenant = caller.ask("echo hi", {**id_headers, "x-sage-tenant": "other"})

    assert (ledger_header(other_key), ledger_header(tenant)) == (None, None)
    assert caller.engine_requests() == 3


def test_embeddings_are_idempotent_too_and_replayed_from_memory(gateway: Any) -> None:
    id_headers, body = new_id_headers(), {"model": "vectors", "input": ["x", "y"]}
    before = gateway.engine_stats("vectors")["requests"]

    first = gateway.client.post("/v1/embeddings", json=body, headers=id_headers)
    again = gateway.client.post("/v1/embeddings", json=body, headers=id_headers)

    assert again.content == first.content
    assert ledger_header(again) == "hit"
    assert gateway.engine_stats("vectors")["requests"] == before + 1


class Inner:
    """A pipeline that sends a request to the pool under the id of its own call."""

    def __init__(self, _: Settings) -> None:
        pass

    async def answer(
        self, body: dict[str, Any], pool: Pool, on_delta: OnDelta | None
    ) -> PipelineReply:
        id_headers = body["metadata"]["id"]
        status, answer, _ = await pool.post(CHAT, chat("echo inner"), {"x-request-id": id_headers})
        assert status == 200
        return PipelineReply("outer of " + orjson.loads(answer)["choices"][0]["message"]["content"])


def test_a_served_pipeline_and_its_inner_calls_have_separate_ids(start: Any, fake: Any) -> None:
    with start({"talk": fake()}, factories={"rag": Inner}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()
        metadata = {"id": id_headers["x-request-id"]}

        plain = caller.ask("echo inner", id_headers)
        outer = [caller.ask("hi", id_headers, model="rag", metadata=metadata) for _ in range(2)]

        assert plain.json()["choices"][0]["message"]["content"] == "inner"
        assert outer[0].json()["choices"][0]["message"]["content"] == "outer of inner"
        assert outer[1].content == outer[0].content
        assert [ledger_header(answer) for answer in (plain, *outer)] == [None, None, "hit"]
        assert caller.engine_requests() == 2


def test_with_store_off_every_call_goes_to_the_engine(start: Any, fake: Any) -> None:
    with start({"talk": fake()}, pool={"ledger": {"store": "off"}}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()
        caller.ask("echo hi", id_headers)
        caller.ask("echo hi", id_headers)

        assert caller.engine_requests() == 2
        assert "sage_gateway_ledger" not in gateway.client.get("/metrics").text


def test_metrics_count_calls_by_outcome(start: Any, fake: Any) -> None:
    with start({"talk": fake()}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()
        for _ in range(3):
            caller.ask("echo hi", id_headers)
        text = gateway.client.get("/metrics").text

    assert 'sage_gateway_ledger_calls_total{outcome="dispatched"} 1.0' in text
    assert 'sage_gateway_ledger_calls_total{outcome="replayed"} 2.0' in text
    assert 'sage_gateway_ledger_calls_total{outcome="coalesced"} 0.0' in text
    assert "sage_gateway_ledger_records_total 1.0" in text
    assert "sage_gateway_ledger_write_seconds_count 1.0" in text
    assert 'sage_gateway_ledger_evictions_total{store="generations"} 0.0' in text
    assert 'sage_gateway_ledger_bytes{store="generations"}' in text
