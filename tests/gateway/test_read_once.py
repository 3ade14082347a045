"""How often the bytes of a request are read, with cache, idempotency and quota on."""

import asyncio
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from types import BuiltinMethodType, FrameType
from typing import Any

import orjson
import pytest

from sage_gateway.openai import schema
from sage_gateway.requests.response import StreamFacts

KEY = b"sk-sage-test"


class CountedHeaders(list[tuple[bytes, bytes]]):
    """Headers that count how often they are iterated."""

    walks = 0

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        self.walks += 1
        return super().__iter__()


class Reads:
    """Counts of the reads by the gateway's thread while ``run`` runs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.scanned = b""

    def __call__(self, frame: FrameType, event: str, called: object) -> None:
        if event == "call" and frame.f_code is StreamFacts.scan.__code__:
            self.scanned += frame.f_locals["chunk"]
        if event == "c_call" and isinstance(called, BuiltinMethodType):
            self.counts["decode"] += called.__self__ in schema._DECODERS.values()
            self.counts["loads"] += called is orjson.loads

    async def run(self, asgi: Any, headers: CountedHeaders, body: bytes) -> bytes:
        """The body of the answer to a POST in this process."""
        received, sent = [{"type": "http.request", "body": body}], []
        hanging = asyncio.Event()

        async def receive() -> Any:
            if not received:
                await hanging.wait()
            return received.pop()

        async def send(event: Any) -> None:
            sent.append(event)

        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions"}
        sys.setprofile(self)
        try:
            await asgi({**scope, "headers": headers}, receive, send)
        finally:
            sys.setprofile(None)
        assert sent[0]["status"] == 200, sent
        return b"".join(event.get("body", b"") for event in sent)


@pytest.fixture(scope="module")
def gateway(start: Any, fake: Any) -> Any:
    pool = {"tenants": {"acme": {"tokens_per_day": 1_000_000}}}
    with start({"talk": fake()}, pool=pool) as gateway:
        yield gateway


def read(gateway: Any, *more: tuple[bytes, bytes], stream: bool) -> tuple[Reads, Any, bytes]:
    messages = [{"role": "user", "content": "count 5"}]
    body = orjson.dumps({"model": "talk", "messages": messages, "stream": stream})
    headers = CountedHeaders(
        [
            (b"authorization", b"Bearer " + KEY),
            (b"x-sage-tenant", b"acme"),
            (b"x-request-id", uuid.uuid4().hex.encode()),
            (b"x-sage-priority", b"low"),
            *more,
        ]
    )
    reads = Reads()
    run = reads.run(gateway.gateway.asgi, headers, body)
    answer = asyncio.run_coroutine_threadsafe(run, gateway.loop).result(10)
    return reads, headers, answer


@pytest.mark.parametrize("stream", [False, True])
def test_body_and_headers_are_read_once(gateway: Any, stream: bool) -> None:
    reads, headers, _ = read(gateway, stream=stream)

    assert (reads.counts["decode"], reads.counts["loads"], headers.walks) == (1, 0, 1)


def test_the_cache_loads_all_fields_of_the_body_once(gateway: Any) -> None:
    reads, headers, _ = read(gateway, (b"x-sage-cache", b"ttl=60"), stream=False)

    assert (reads.counts["decode"], reads.counts["loads"], headers.walks) == (1, 1, 1)


def test_each_chunk_of_a_stream_is_scanned_once(gateway: Any) -> None:
    reads, _, answer = read(gateway, stream=True)

    assert answer.endswith(b"data: [DONE]\n\n")
    assert reads.scanned == answer
