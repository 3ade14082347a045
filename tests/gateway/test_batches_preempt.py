"""A batch next to interactive requests: it hardly slows them, and it survives kill -9."""

import json
import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from gateway_process import gateway_process
from waiting import wait_until

CHAT = "/v1/chat/completions"
FAKE = {"engine": "fake", "kind": "chat"}


def line(number: int, content: str) -> bytes:
    body = {"model": "talk", "messages": [{"role": "user", "content": content}]}
    one = {"custom_id": f"line {number}", "method": "POST", "url": CHAT, "body": body}
    return json.dumps(one).encode() + b"\n"


def start_batch(client: httpx.Client, lines: list[bytes]) -> str:
    """The id of a batch of these lines."""
    upload = {"file": ("in.jsonl", b"".join(lines))}
    file = client.post("/v1/files", files=upload, data={"purpose": "batch"}).json()
    wanted = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
    made: str = client.post("/v1/batches", json=wanted).json()["id"]
    return made


def batch_of(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/batches/{batch_id}").json()
    return found


def completed_count(client: httpx.Client, batch_id: str) -> int:
    count: int = batch_of(client, batch_id)["request_counts"]["completed"]
    return count


def is_completed(client: httpx.Client, batch_id: str) -> bool:
    return batch_of(client, batch_id)["status"] == "completed"


def answers(client: httpx.Client, batch_id: str) -> Counter[str]:
    """How often each line is in the output file."""
    output = client.get(f"/v1/files/{batch_of(client, batch_id)['output_file_id']}/content").text
    return Counter(json.loads(one)["custom_id"] for one in output.splitlines())


def latencies(client: httpx.Client, count: int) -> list[float]:
    """Sorted latencies of ``count`` interactive requests, one after another; in seconds."""
    took = []
    body = {"model": "talk", "messages": [{"role": "user", "content": "sleep 0.04"}]}
    for _ in range(count):
        began = time.monotonic()
        assert client.post(CHAT, json=body).status_code == 200
        took.append(time.monotonic() - began)
    return sorted(took)


def test_interactive_latency_next_to_a_batch_is_hardly_higher(
    start: Any, fake: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with start({"talk": fake(concurrency=4)}) as gateway:
        alone = latencies(gateway.client, 100)
        # The last lines are held, so that the batch outlasts the requests on any machine.
        lines = [line(i, "sleep 0.4" if i < 50 else "hold lines") for i in range(60)]
        batch = start_batch(gateway.client, lines)
        gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 4)
        with_batch = latencies(gateway.client, 100)
        busy = not is_completed(gateway.client, batch)
        gateway.release("lines")
        gateway.until(lambda: is_completed(gateway.client, batch), 60)
        preempted = gateway.pool.models["talk"].queue.preemptible.preempted
        found = answers(gateway.client, batch)

    with capsys.disabled():
        p50, p90 = (with_batch[i] / alone[i] for i in (50, 90))
        print(f"\nlatency with a batch: p50 x {p50:.2f}, p90 x {p90:.2f}; {preempted} preempted")
    assert busy
    assert preempted > 10
    assert found == {f"line {i}": 1 for i in range(60)}
    assert with_batch[90] < 2 * alone[90] + 0.05


def test_a_background_request_with_an_id_is_preempted_but_a_started_stream_is_not(
    start: Any, fake: Any
) -> None:
    def background(content: str, request_id: str, **more: Any) -> dict[str, Any]:
        headers = {"x-sage-priority": "background", "x-request-id": request_id}
        body = {"model": "talk", "messages": [{"role": "user", "content": content}], **more}
        return {"url": CHAT, "json": body, "headers": headers}

    with start({"talk": fake(concurrency=1)}) as gateway, ThreadPoolExecutor(2) as callers:
        member = gateway.pool.models["talk"].replica_slots[0]
        whole = callers.submit(gateway.client.post, **background("hold whole", "a" * 32))
        gateway.until(lambda: gateway.engine_stats()["requests"] == 1)
        assert gateway.chat("echo hi").status_code == 200
        assert not whole.done()
        gateway.release("whole")
        assert whole.result().status_code == 200
        gateway.until(lambda: gateway.engine_stats()["hung_up"] == 1)
        assert gateway.engine_stats()["requests"] == 3

        slow = background("slow", "b" * 32, stream=True)
        with gateway.client.stream("POST", **slow) as stream:
            lines = stream.iter_lines()
            next(lines)
            user = callers.submit(gateway.chat, "echo hi")
            gateway.until(lambda: len(gateway.pool.models["talk"].queue) == 1)
            assert gateway.pool.models["talk"].queue.preemptible.preempted == 1
            member.process.send_signal(signal.SIGKILL)
            assert "stream_interrupted" in "".join(lines)
        user.result()


def test_a_background_request_without_an_id_is_not_preempted(start: Any, fake: Any) -> None:
    with start({"talk": fake(concurrency=1)}) as gateway, ThreadPoolExecutor(1) as callers:
        body = {"model": "talk", "messages": [{"role": "user", "content": "sleep 0.5"}]}
        headers = {"x-background": "1"}
        whole = callers.submit(gateway.client.post, CHAT, json=body, headers=headers)
        gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 1)

        assert gateway.chat("echo hi").status_code == 200
        assert whole.result().status_code == 200
        assert gateway.engine_stats()["requests"] == 2
        assert gateway.pool.models["talk"].queue.preemptible.preempted == 0


def test_a_thousand_lines_with_kill_9_midway_give_a_thousand_answers(tmp_path: Path) -> None:
    lines = [line(i, f"echo answer {i}") for i in range(1000)]
    limits = {"tokens_per_day": 10**9}  # what a budget counts outlives a crash
    with gateway_process(tmp_path, {"talk": FAKE}) as (process, client):
        made = client.post("/pool/keys", json={"tenant": "acme", "limits": limits}).json()
        auth = {"Authorization": f"Bearer {made['key']}"}
        client.headers.update(auth)
        batch = start_batch(client, lines)
        wait_until(lambda: completed_count(client, batch) > 200, 90, "a fifth of the batch")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    with gateway_process(tmp_path, {"talk": FAKE}) as (_, client):
        admin = dict(client.headers)
        client.headers.update(auth)
        wait_until(lambda: is_completed(client, batch), 120, "the rest of the batch")
        counts = batch_of(client, batch)["request_counts"]
        found = answers(client, batch)
        usage = client.get("/v1/usage", headers=admin).json()["data"]

    assert counts == {"total": 1000, "completed": 1000, "failed": 0}
    assert found == {f"line {i}": 1 for i in range(1000)}
    assert sum(one["requests"] for one in usage) == 1000
