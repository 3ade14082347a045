"""Scaling of real processes: one, three, one, zero, and one again at the first request."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

SCALING = {
    "min": 0,
    "max": 3,
    "target_queue_wait_ms": 100,
    "up_cooldown_s": 0.5,
    "down_cooldown_s": 1,
    "idle_s": 2,
}


@contextmanager
def load(gateway: Any, callers: int) -> Iterator[list[int]]:
    """This many clients send requests in a loop; yields the statuses of their answers."""
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client(headers=gateway.client.headers, timeout=30, verify=False) as client:
            while not stop.is_set():
                body = {"model": "talk", "messages": [{"role": "user", "content": "sleep 0.1"}]}
                found = client.post(f"{gateway.url}/v1/chat/completions", json=body)
                statuses.append(found.status_code)

    threads = [threading.Thread(target=ask) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def replicas(gateway: Any) -> list[int]:
    """The number of replicas in each scaling decision, oldest first."""
    decisions = gateway.client.get("/pool/decisions").json()["data"]
    return [each["replicas"] for each in reversed(decisions) if each["action"] != "hold"]


@pytest.mark.timeout(120)
def test_replicas_follow_the_load_down_to_zero_and_no_request_fails(start: Any, fake: Any) -> None:
    with start({"talk": fake(concurrency=1, scaling=SCALING)}) as gateway:
        model = gateway.pool.models["talk"]
        with load(gateway, 6) as statuses:
            gateway.until(lambda: model.ready() == 3, 30)
        gateway.until(lambda: not model.replica_slots, 60)
        began = time.monotonic()
        first = gateway.chat("echo back")

        assert first.status_code == 200
        assert time.monotonic() - began < 10
        assert set(statuses) == {200}
        assert max(replicas(gateway)) == 3
        assert replicas(gateway)[-2:] == [0, 1]
        assert gateway.healthy()
