"""A client disconnect ends its request, in the queue or at the engine."""

import asyncio
import json
import random
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import orjson
import pytest

from sage_flink.common import Settings
from sage_flink.flow import Pool
from sage_gateway.pipelines.served_pipeline import OnDelta, PipelineReply

CHAT = "/v1/chat/completions"
#: Also on a busy machine; without the disconnect the requests last 20 s or more.
WITHIN_S = 10.0


def chat(content: str, **more: Any) -> dict[str, Any]:
    return {"model": "talk", "messages": [{"role": "user", "content": content}], **more}


@contextmanager
def open_call(gateway: Any, content: str, *, stream: bool) -> Iterator[socket.socket]:
    """A client request whose connection is closed at the end of the block."""
    with gateway.open_call(chat(content, stream=stream)) as caller:
        yield caller


@pytest.mark.parametrize("stream", [False, True])
def test_a_running_request_is_aborted_at_the_engine(gateway: Any, stream: bool) -> None:
    before = gateway.engine_stats()
    with open_call(gateway, "slow" if stream else "sleep 30", stream=stream) as caller:
        gateway.until(lambda: gateway.engine_stats()["requests"] == before["requests"] + 1)
        gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 1)
        if stream:
            assert caller.recv(1)  # the stream has begun
    closed_at = time.monotonic()

    gateway.until(lambda: gateway.engine_stats()["hung_up"] == before["hung_up"] + 1, WITHIN_S)
    print(f"aborted after {1000 * (time.monotonic() - closed_at):.0f} ms")
    gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 0, WITHIN_S)


@pytest.mark.parametrize("stream", [False, True])
def test_a_queued_request_leaves_the_queue_and_never_reaches_an_engine(
    start: Any, fake: Any, stream: bool
) -> None:
    with start({"talk": fake(concurrency=1)}) as gateway:
        queue = gateway.pool.models["talk"].queue
        with open_call(gateway, "sleep 30", stream=False):
            gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 1)
            with open_call(gateway, "echo hi", stream=stream):
                gateway.until(lambda: len(queue) == 1)
            gateway.until(lambda: len(queue) == 0, WITHIN_S)

        gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 0, WITHIN_S)
        assert gateway.engine_stats()["requests"] == 1


def usage_of(gateway: Any, key_id: str) -> tuple[int, int, int]:
    found = [u for u in gateway.client.get("/v1/usage").json()["data"] if u["key"] == key_id]
    names = "requests", "prompt_tokens", "completion_tokens"
    requests, prompt, completion = (sum(one[name] for one in found) for name in names)
    return requests, prompt, completion


@pytest.mark.parametrize("with_id", [False, True])
def test_a_whole_answer_that_its_client_leaves_is_charged_at_the_pace_of_earlier_answers(
    start: Any, fake: Any, with_id: bool
) -> None:
    with start({"talk": fake()}, pool={"ledger": {"grace_s": 0.3}}) as gateway:
        limits = {"tokens_per_month": 10**9}
        key = gateway.client.post("/pool/keys", json={"tenant": "acme", "limits": limits}).json()
        first = gateway.chat("sleep 0.4")
        assert first.json()["usage"]["completion_tokens"] == 2
        ids = ["idempotency-key: 1"] * with_id
        body, began = chat("sleep 30", max_tokens=100), time.monotonic()
        with gateway.open_call(body, headers=ids, key=key["key"]):
            gateway.until(lambda: gateway.engine_stats()["requests"] == 2)
            time.sleep(1.2)

        gateway.until(lambda: usage_of(gateway, key["id"])[0] == 1)
        _, prompt, completion = usage_of(gateway, key["id"])
        took_s = time.monotonic() - began

        assert prompt == len(orjson.dumps(body)) // 4
        # A token of the first answer took 0.2 s or, on a busy machine, longer.
        assert 1.2 / first.elapsed.total_seconds() <= completion <= took_s / 0.2 + 3


class TwoCalls:
    """A pipeline that embeds the question, and then generates."""

    def __init__(self, _: Settings) -> None:
        pass

    async def answer(
        self, body: dict[str, Any], pool: Pool, on_delta: OnDelta | None
    ) -> PipelineReply:
        text = body["messages"][-1]["content"]
        await pool.post("/v1/embeddings", orjson.dumps({"model": "vectors", "input": text}), {})
        chat = {"model": "talk", "messages": [{"role": "user", "content": text}]}
        if on_delta is None:
            await pool.post(CHAT, orjson.dumps(chat), {})
        else:
            async for _ in pool.stream(CHAT, orjson.dumps({**chat, "stream": True}), {}):
                await on_delta("x")
        return PipelineReply("done")


CALLS: list[tuple[str, dict[str, Any]]] = [
    (CHAT, chat("sleep 0.3")),
    (CHAT, chat("slow", stream=True)),
    (CHAT, chat("echo hi")),
    ("/v1/completions", {"model": "talk", "prompt": "echo a b c"}),
    ("/v1/completions", {"model": "talk", "prompt": "a b c", "stream": True}),
    ("/v1/embeddings", {"model": "vectors", "input": ["a"] * 50}),
    ("/v1/rerank", {"model": "ranks", "query": "a", "documents": ["a"] * 50}),
    ("/v1/responses", {"model": "talk", "input": "sleep 0.3"}),
    ("/v1/responses", {"model": "talk", "input": "slow", "stream": True}),
    (CHAT, {**chat("sleep 0.3"), "model": "rag"}),
    (CHAT, {**chat("slow", stream=True), "model": "rag"}),
]
DISCONNECTS = 300


async def disconnect_at(target: str, key: str, rng: random.Random) -> None:
    """Send a random call, with an id or without, and leave within half a second."""
    path, body = rng.choice(CALLS)
    ids = [f"idempotency-key: {rng.random()}"] * rng.randrange(2)
    raw = orjson.dumps(body)
    head = [f"POST {path} HTTP/1.1", f"authorization: Bearer {key}", *ids]
    name, port = target.removeprefix("http://").rstrip("/").split(":")
    _, writer = await asyncio.open_connection(name, int(port))
    writer.write("\r\n".join([*head, f"content-length: {len(raw)}", "", ""]).encode() + raw)
    await asyncio.sleep(rng.expovariate(1 / 0.1))
    writer.transport.abort()


async def cancel_batch(target: str, key: str, rng: random.Random) -> None:
    """Start a batch of calls and cancel it at a random moment."""
    line = {"custom_id": "1", "method": "POST", "url": CHAT, "body": chat("sleep 0.3")}
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(
        base_url=target, headers=headers, timeout=20, verify=False
    ) as client:
        files, purpose = {"file": ("in", json.dumps(line).encode())}, {"purpose": "batch"}
        file = (await client.post("/v1/files", files=files, data=purpose)).json()
        wanted = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
        batch = (await client.post("/v1/batches", json=wanted)).json()
        await asyncio.sleep(rng.uniform(0, 0.3))
        await client.post(f"/v1/batches/{batch['id']}/cancel")


async def disconnect_often(target: str, key: str) -> None:
    rng, at_once = random.Random(13), asyncio.Semaphore(20)

    async def one(n: int) -> None:
        async with at_once:
            await (cancel_batch if n % 30 == 0 else disconnect_at)(target, key, rng)

    await asyncio.gather(*(one(n) for n in range(DISCONNECTS)))


def test_disconnects_at_random_moments_leave_no_slot_taken_and_no_cost_held(
    start: Any, fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    models = {"talk": fake(concurrency=8), "vectors": fake("embedding"), "ranks": fake("rerank")}
    options = {"ledger": {"grace_s": 0.2}}
    with start(models, factories={"rag": TwoCalls}, pool=options) as gateway:
        limits = {"tokens_per_month": 10**9}
        key = gateway.client.post("/pool/keys", json={"tenant": "acme", "limits": limits}).json()

        asyncio.run(disconnect_often(gateway.url, key["key"]))

        slots = [slot for m in gateway.pool.models.values() for slot in m.replica_slots]
        gateway.until(lambda: not any(slot.in_flight for slot in slots))
        gateway.until(lambda: "sage_gateway_in_flight 0.0" in gateway.client.get("/metrics").text)
        accounts = gateway.gateway.accounting.tenants.store._balances._accounts
        gateway.until(lambda: not any(one.tokens_held for one in accounts.values()))
        spent = {name: one.month_spent for name, one in accounts.items() if key["id"] in name}
        usage = [u for u in gateway.client.get("/v1/usage").json()["data"] if u["key"] == key["id"]]
        print(f"{sum(u['requests'] for u in usage)} charged, {list(spent.values())} tokens")

        assert list(spent.values()) == [sum(u["total_tokens"] for u in usage)]
        assert all(len(model.queue) == 0 for model in gateway.pool.models.values())
        assert not any(slot.is_degraded(time.monotonic()) for slot in slots)
        assert "circuit" not in caplog.text
        assert gateway.chat("echo still here").status_code == 200
