"""How often the bytes of a request are read, with cache, idempotency and quota on."""

import asyncio
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from types import BuiltinMethodType, FrameType
from typing import Any

import httpx
import orjson
import pytest
from app_server import serve_app
from typing_extensions import override

from sage_gateway.http.asgi_app import GatewayApp
from sage_gateway.http.gateway_protocol import GatewayProtocol
from sage_gateway.openai import decoding
from sage_gateway.requests.response import StreamFacts

KEY = "sk-sage-test"


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
            self.counts["decode"] += called.__self__ in decoding._DECODERS.values()
            self.counts["loads"] += called is orjson.loads


class CountingProtocol(GatewayProtocol):
    """A connection whose headers count how often they are iterated."""

    last: CountedHeaders

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.headers = CountingProtocol.last = CountedHeaders()


@pytest.fixture(scope="module")
def gateway(start: Any, fake: Any) -> Any:
    pool = {"tenants": {"acme": {"tokens_per_day": 1_000_000}}}
    with start({"talk": fake()}, pool=pool) as gateway:
        yield gateway


async def post(app: GatewayApp, headers: dict[str, str], body: bytes) -> tuple[Reads, bytes]:
    """The reads of one request, and the body of its answer."""
    reads = Reads()
    async with (
        serve_app(app, CountingProtocol) as server,
        httpx.AsyncClient(verify=False) as client,
    ):
        sys.setprofile(reads)
        try:
            answer = await client.post(
                server.url + "/v1/chat/completions", content=body, headers=headers
            )
        finally:
            sys.setprofile(None)
    assert answer.status_code == 200, answer.text
    return reads, answer.content


def read(gateway: Any, *, stream: bool, **more: str) -> tuple[Reads, CountedHeaders, bytes]:
    messages = [{"role": "user", "content": "count 5"}]
    body = orjson.dumps({"model": "talk", "messages": messages, "stream": stream})
    headers = {
        "authorization": f"Bearer {KEY}",
        "x-sage-tenant": "acme",
        "x-request-id": uuid.uuid4().hex,
        "x-sage-priority": "low",
        **more,
    }
    run = post(gateway.gateway.asgi, headers, body)
    reads, answer = asyncio.run_coroutine_threadsafe(run, gateway.loop).result(10)
    return reads, CountingProtocol.last, answer


@pytest.mark.parametrize("stream", [False, True])
def test_body_and_headers_are_read_once(gateway: Any, stream: bool) -> None:
    reads, headers, _ = read(gateway, stream=stream)

    assert (reads.counts["decode"], reads.counts["loads"], headers.walks) == (1, 0, 1)


def test_the_cache_loads_all_fields_of_the_body_once(gateway: Any) -> None:
    reads, headers, _ = read(gateway, stream=False, **{"x-sage-cache": "ttl=60"})

    assert (reads.counts["decode"], reads.counts["loads"], headers.walks) == (1, 1, 1)


def test_each_chunk_of_a_stream_is_scanned_once(gateway: Any) -> None:
    reads, _, answer = read(gateway, stream=True)

    assert answer.endswith(b"data: [DONE]\n\n")
    assert reads.scanned == answer
