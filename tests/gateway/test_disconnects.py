"""A client disconnect ends its request within a second, in the queue or at the engine."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson
import pytest

CHAT = "/v1/chat/completions"
KEY = "sk-sage-test"
WITHIN_S = 1.0


@contextmanager
def open_call(gateway: Any, content: str, *, stream: bool) -> Iterator[None]:
    """A client request whose connection is closed at the end of the block."""
    body = {"model": "talk", "stream": stream, "messages": [{"role": "user", "content": content}]}
    raw = orjson.dumps(body)
    name, port = gateway.url.removeprefix("http://").rstrip("/").split(":")
    with socket.create_connection((name, int(port))) as caller:
        caller.sendall(
            b"POST %b HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n"
            % (CHAT.encode(), KEY.encode(), len(raw))
            + raw
        )
        yield


@pytest.mark.parametrize("stream", [False, True])
def test_a_running_request_is_aborted_at_the_engine(gateway: Any, stream: bool) -> None:
    hung_up = gateway.engine_stats()["hung_up"]
    with open_call(gateway, "slow" if stream else "sleep 30", stream=stream):
        gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 1)
        time.sleep(0.1)
    closed_at = time.monotonic()

    gateway.until(lambda: gateway.engine_stats()["hung_up"] == hung_up + 1, WITHIN_S)
    took_s = time.monotonic() - closed_at
    print(f"aborted after {1000 * took_s:.0f} ms")
    assert took_s < WITHIN_S
    gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 0, WITHIN_S)


@pytest.mark.parametrize("stream", [False, True])
def test_a_queued_request_leaves_the_queue_and_never_reaches_an_engine(
    start: Any, fake: Any, stream: bool
) -> None:
    with start({"talk": fake(concurrency=1)}) as gateway:
        queue = gateway.pool.models["talk"].queue
        with open_call(gateway, "sleep 2", stream=False):
            gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 1)
            with open_call(gateway, "echo hi", stream=stream):
                gateway.until(lambda: len(queue) == 1)
            gateway.until(lambda: len(queue) == 0, WITHIN_S)

        gateway.until(lambda: gateway.pool.models["talk"].replica_slots[0].in_flight == 0, WITHIN_S)
        assert gateway.engine_stats()["requests"] == 1
