"""A hung replica soon gets no requests, and a slow one is not killed."""

import os
import signal
import time
from typing import Any

import pytest

#: 2 s on a machine with nothing else to do; three missed checks, which restart it, take 15 s.
HUNG_S = 10.0


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


def test_a_hung_replica_is_degraded_before_it_is_restarted_and_gets_no_requests(pair: Any) -> None:
    pid = member(pair).process.pid
    before = pair.engine_stats(replica=0)["requests"]
    os.kill(pid, signal.SIGSTOP)
    try:
        pair.until(lambda: is_degraded(pair), HUNG_S)
        ends = [pair.chat("echo hi").status_code for _ in range(20)]
        in_flight = member(pair).in_flight
    finally:
        os.kill(pid, signal.SIGCONT)

    assert (ends, in_flight) == ([200] * 20, 0)
    pair.until(lambda: not is_degraded(pair))
    assert pair.engine_stats(replica=0)["requests"] == before
    assert (member(pair).process.pid, member(pair).replica.restarts) == (pid, 0)


def test_a_slow_check_does_not_affect_the_other_replica(pair: Any) -> None:
    pid = member(pair).process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        pair.until(lambda: is_degraded(pair), HUNG_S)
        assert not member(pair, 1).is_degraded(time.monotonic())
    finally:
        os.kill(pid, signal.SIGCONT)
