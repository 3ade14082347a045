"""Idempotency: a call under an id is generated once; the fake engine counts its requests."""

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import orjson
import pytest

from sage_flink.common import Settings
from sage_flink.flow import Pool
from sage_gateway.pipelines.served_pipeline import OnDelta, PipelineReply

KEY = "sk-sage-test"
CHAT = "/v1/chat/completions"


def new_id_headers() -> dict[str, str]:
    return {"x-request-id": uuid.uuid4().hex}


class RepeatingClient:
    """Client that repeats requests under their ids, and counts the requests at the engine."""

    def __init__(self, gateway: Any) -> None:
        self.gateway = gateway
        self._before = gateway.engine_stats()

    def ask(self, content: str, headers: dict[str, str], **more: Any) -> httpx.Response:
        found: httpx.Response = self.gateway.client.post(
            CHAT, content=chat(content, **more), headers=headers
        )
        return found

    def begin(self, content: str, headers: dict[str, str], **more: Any) -> "Future":
        return Future(lambda: self.ask(content, headers, **more))

    def disconnect(self, content: str, headers: dict[str, str]) -> None:
        """Send a request that is new to the engine, and leave once the engine has it."""
        before = self.engine_requests()
        lines = [f"{name}: {value}" for name, value in headers.items()]
        with self.gateway.open_call(orjson.loads(chat(content)), headers=lines):
            self.gateway.until(lambda: self.engine_requests() > before)

    def until_listeners(self, count: int) -> None:
        """Wait until so many clients wait for the generations in flight that have an id."""
        calls = self.gateway.generations
        self.gateway.until(lambda: sum(call.listeners for call in calls()) == count)

    def engine_requests(self) -> int:
        count: int = self.gateway.engine_stats()["requests"] - self._before["requests"]
        return count

    def abort_count(self) -> int:
        count: int = self.gateway.engine_stats()["hung_up"] - self._before["hung_up"]
        return count

    def metric(self, name: str) -> float:
        """The value of a metric, summed over its labels."""
        lines = self.gateway.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


class Future:
    """A call in a thread."""

    def __init__(self, work: Callable[[], httpx.Response]) -> None:
        self._found: list[httpx.Response] = []
        self._thread = threading.Thread(target=lambda: self._found.append(work()))
        self._thread.start()

    def result(self) -> httpx.Response:
        self._thread.join(20)
        return self._found[0]


def chat(content: str, **more: Any) -> bytes:
    messages = [{"role": "user", "content": content}]
    return orjson.dumps({"model": "talk", "messages": messages} | more)


def ledger_header(answer: httpx.Response) -> str | None:
    return answer.headers.get("x-sage-ledger")


@pytest.fixture
def caller(gateway: Any) -> Iterator[RepeatingClient]:
    return RepeatingClient(gateway)


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


def test_a_client_that_disconnects_and_repeats_joins_the_detached_call(
    caller: RepeatingClient,
) -> None:
    id_headers = new_id_headers()

    caller.disconnect("hold detached", id_headers)
    caller.until_listeners(0)
    future = caller.begin("hold detached", id_headers)
    caller.until_listeners(1)
    caller.gateway.release("detached")
    again = future.result()

    assert ledger_header(again) == "joined"
    assert (caller.engine_requests(), caller.abort_count()) == (1, 0)


def test_a_client_that_disconnects_and_repeats_later_gets_the_recorded_answer(
    caller: RepeatingClient,
) -> None:
    id_headers = new_id_headers()
    kept = caller.metric("sage_gateway_ledger_records_total")

    caller.disconnect("sleep 0.6", id_headers)
    caller.gateway.until(lambda: caller.metric("sage_gateway_ledger_records_total") > kept)
    again = caller.ask("sleep 0.6", id_headers)

    assert ledger_header(again) == "hit"
    assert again.json()["choices"][0]["message"]["content"] == "sleep"
    assert (caller.engine_requests(), caller.abort_count()) == (1, 0)


def test_a_killed_and_replayed_job_generates_no_answer_twice(start: Any, fake: Any) -> None:
    count = 60

    async def all_of(gateway: Any, ids: list[dict[str, str]], seconds: float) -> list[Any]:
        limits = httpx.Limits(max_connections=None)
        key = {"authorization": f"Bearer {KEY}"}
        timeout = httpx.Timeout(30.0, read=seconds)
        async with httpx.AsyncClient(limits=limits, timeout=timeout, headers=key) as client:
            url, body = gateway.url + CHAT, chat("sleep 4")
            calls = (client.post(url, content=body, headers=id_headers) for id_headers in ids)
            return await asyncio.gather(*calls, return_exceptions=True)

    with start({"talk": fake()}) as gateway:
        caller, ids = RepeatingClient(gateway), [new_id_headers() for _ in range(count)]
        cut_off = asyncio.run(all_of(gateway, ids, 2.0))
        replayed = asyncio.run(all_of(gateway, ids, 30.0))

        assert {type(answer) for answer in cut_off} == {httpx.ReadTimeout}
        assert {answer.status_code for answer in replayed} == {200}
        assert {ledger_header(answer) for answer in replayed} <= {"joined", "hit"}
        assert (caller.engine_requests(), caller.abort_count()) == (count, 0)


def test_a_client_that_returns_to_its_stream_gets_it_from_the_start(start: Any, fake: Any):
    with start({"talk": fake()}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()
        body = chat("slow", stream=True)
        with gateway.client.stream("POST", CHAT, content=body, headers=id_headers) as first:
            started = next(first.iter_lines())
        time.sleep(0.3)
        with gateway.client.stream("POST", CHAT, content=body, headers=id_headers) as again:
            assert next(again.iter_lines()) == started

        assert again.headers["x-sage-ledger"] == "joined"
        assert (caller.engine_requests(), caller.abort_count()) == (1, 0)


def test_a_call_without_an_id_is_aborted_with_its_client(caller: RepeatingClient) -> None:
    caller.disconnect("sleep 30", {"x-request-id": "r-1"})

    caller.gateway.until(lambda: caller.abort_count() == 1, 10.0)


def test_a_detached_call_is_aborted_after_its_grace_time(start: Any, fake: Any) -> None:
    with start({"talk": fake()}, pool={"ledger": {"grace_s": 0.5}}) as gateway:
        caller = RepeatingClient(gateway)

        caller.disconnect("sleep 30", new_id_headers())
        gateway.until(lambda: caller.abort_count() == 1, 15.0)

        assert caller.metric("sage_gateway_ledger_detached_aborted_total") == 1
        assert caller.metric("sage_gateway_ledger_detached ") == 0


def test_detached_calls_beyond_the_limit_are_aborted(start: Any, fake: Any) -> None:
    with start({"talk": fake()}, pool={"ledger": {"orphans_max": 1}}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()

        caller.disconnect("hold first", id_headers)
        caller.until_listeners(0)
        caller.disconnect("sleep 30", new_id_headers())
        gateway.until(lambda: caller.abort_count() == 1, 15.0)

        assert caller.metric("sage_gateway_ledger_detached ") == 1
        gateway.release("first")
        assert ledger_header(caller.ask("hold first", id_headers)) in ("joined", "hit")
        assert caller.engine_requests() == 2


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


@pytest.mark.parametrize("script", ["status 500", "status 429", "overflow"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_failure_is_delivered_and_not_recorded(
    caller: RepeatingClient, script: str, stream: bool
) -> None:
    id_headers = new_id_headers()

    first = caller.ask(script, id_headers, stream=stream)
    again = caller.ask(script, id_headers, stream=stream)

    assert first.status_code == again.status_code >= 400
    assert (ledger_header(first), ledger_header(again)) == (None, None)
    assert caller.engine_requests() == 2


def test_a_failure_is_delivered_to_all_joined_clients(start: Any, fake: Any) -> None:
    with start({"talk": fake(timeout_s=4)}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()
        first = caller.begin("sleep 15", id_headers)
        gateway.until(lambda: caller.engine_requests() == 1)
        joined = caller.begin("sleep 15", id_headers)

        assert (first.result().status_code, joined.result().status_code) == (504, 504)
        assert caller.engine_requests() == 1


def test_a_stream_that_the_engine_cut_is_not_recorded(start: Any, fake: Any) -> None:
    with start({"talk": fake()}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()

        first = caller.ask("cut 3", id_headers, stream=True)
        again = caller.ask("cut 3", id_headers, stream=True)

        assert "stream_interrupted" in first.text
        assert again.content == first.content
        assert ledger_header(again) is None
        assert caller.engine_requests() == 2


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_above_the_size_limit_is_delivered_but_not_recorded(
    start: Any, fake: Any, stream: bool
) -> None:
    script = "echo " + " ".join(["word"] * 300)
    with start({"talk": fake()}, pool={"ledger": {"answer_bytes_max": 1024}}) as gateway:
        caller, id_headers = RepeatingClient(gateway), new_id_headers()

        first = caller.ask(script, id_headers, stream=stream)
        again = caller.ask(script, id_headers, stream=stream)

        assert first.text.count("word") == again.text.count("word") == 300
        assert ledger_header(again) is None
        assert caller.engine_requests() == 2
        assert caller.metric("sage_gateway_ledger_unfit_total") == 2


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
