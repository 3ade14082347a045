"""A hung replica gets no requests within two seconds, and a slow one is not killed."""

import os
import signal
import time
from typing import Any

import pytest

HUNG_S = 2.0


@pytest.fixture
def pair(start: Any) -> Any:
    """Two replicas with the default health checks of a pool.yaml."""
    model = {"engine": "fake", "kind": "chat", "replicas": 2, "routing": "round_robin"}
    with start({"talk": model}) as gateway:
        gateway.until(lambda: gateway.pool.models["talk"].ready() == 2)
        yield gateway


def member(gateway: Any, replica: int = 0) -> Any:
    return gateway.pool.models["talk"].replica_slots[replica]


def is_degraded(gateway: Any) -> bool:
    found: bool = member(gateway).is_degraded(time.monotonic())
    return found


def test_a_hung_replica_is_degraded_within_two_seconds_and_gets_no_more_requests(pair: Any) -> None:
    pid = member(pair).process.pid
    before = pair.engine_stats(replica=0)["requests"]
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        pair.until(lambda: is_degraded(pair), 5)
        took_s = time.monotonic() - began
        ends = [pair.chat("echo hi").status_code for _ in range(20)]
        in_flight = member(pair).in_flight
    finally:
        os.kill(pid, signal.SIGCONT)

    assert took_s < HUNG_S + 0.5  # delay of a loaded machine
    assert (ends, in_flight) == ([200] * 20, 0)
    pair.until(lambda: not is_degraded(pair), 5)
    assert pair.engine_stats(replica=0)["requests"] == before
    assert (member(pair).process.pid, member(pair).replica.restarts) == (pid, 0)


def test_a_slow_check_does_not_affect_the_other_replica(pair: Any) -> None:
    pid = member(pair).process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        pair.until(lambda: is_degraded(pair), 5)
        assert not member(pair, 1).is_degraded(time.monotonic())
    finally:
        os.kill(pid, signal.SIGCONT)
