"""Calls in flight: which answers are recorded, and how a call ends without its clients."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from sage_gateway.errors import GatewayError
from sage_gateway.idempotency.counters import IdempotencyMetrics
from sage_gateway.idempotency.decisions import IdempotencyKey
from sage_gateway.idempotency.in_flight_calls import InFlightCalls, InFlightLimits
from sage_gateway.idempotency.memory import MemoryIdempotencyStore
from sage_gateway.requests.request import Request
from sage_gateway.requests.response import DONE, Response, StreamFacts, StreamingResponse

KEY = IdempotencyKey(b"name", b"digest")
EVENT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'


class Observer:
    """Notes how a stream ended."""

    def __init__(self) -> None:
        self.ends: list[tuple[bool, int]] = []
        self.ended = asyncio.Event()

    async def before_done(self, facts: StreamFacts, chunk: bytes) -> None:
        pass

    async def on_end(self, facts: StreamFacts, *, complete: bool) -> None:
        self.ends.append((complete, facts.status))
        self.ended.set()


class Engine:
    """Streams ``chunks``; with ``hangs`` the stream does not end. Counts the requests."""

    def __init__(self, *chunks: bytes, hangs: bool = False) -> None:
        self.requests = 0
        self.observer = Observer()
        self._chunks = chunks
        self._hangs = hangs

    async def answer(self, request: Request) -> StreamingResponse:
        self.requests += 1
        events = self._events()
        found = StreamingResponse(events, events.aclose)
        found.observe(self.observer)
        return found

    async def _events(self) -> Any:
        for chunk in self._chunks:
            yield chunk
        if self._hangs:
            await asyncio.Event().wait()


def calls_of(engine: Any, *, detached_max: int = 8) -> InFlightCalls:
    store = MemoryIdempotencyStore(ttl_s=60, bytes_max=1 << 20)
    limits = InFlightLimits(1 << 20, 60.0, detached_max)
    metrics = IdempotencyMetrics(CollectorRegistry())
    return InFlightCalls(store, engine.answer, limits=limits, metrics=metrics)


async def stream_of(calls: InFlightCalls) -> StreamingResponse:
    found = await calls.answer(KEY, Request())
    assert isinstance(found, StreamingResponse)
    return found


async def read(stream: StreamingResponse) -> bytes:
    try:
        return b"".join([chunk async for chunk in stream])
    finally:
        await stream.close()


async def test_a_stream_without_events_is_delivered_and_not_recorded() -> None:
    engine = Engine(DONE)
    calls = calls_of(engine)

    answers = [await read(await stream_of(calls)) for _ in range(2)]

    assert answers == [DONE, DONE]
    assert engine.requests == 2


async def test_a_stream_with_events_is_recorded() -> None:
    engine = Engine(EVENT, DONE)
    calls = calls_of(engine)

    answers = [await read(await stream_of(calls)) for _ in range(2)]

    assert answers == [EVENT + DONE] * 2
    assert engine.requests == 1


async def test_a_stream_that_ends_with_the_gateway_is_broken_and_not_left_by_its_client() -> None:
    engine = Engine(EVENT, hangs=True)
    calls = calls_of(engine)
    stream = await stream_of(calls)
    assert await anext(stream) == EVENT
    await stream.close()

    await calls.close()

    assert engine.observer.ends == [(False, 503)]


@pytest.mark.parametrize(
    ("end", "status"), [(StreamingResponse.abandon, 503), (StreamingResponse.close, 200)]
)
async def test_a_call_that_cannot_continue_alone_is_broken_by_the_gateway_and_left_by_a_client(
    end: Callable[[StreamingResponse], Awaitable[None]], status: int
) -> None:
    engine = Engine(EVENT, hangs=True)
    calls = calls_of(engine, detached_max=0)
    stream = await stream_of(calls)
    assert await anext(stream) == EVENT

    await end(stream)
    await engine.observer.ended.wait()

    assert engine.observer.ends == [(False, status)]


class SlowEngine:
    """Gives a whole answer once ``ready`` is set."""

    def __init__(self) -> None:
        self.requests = 0
        self.ready = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        self.requests += 1
        await self.ready.wait()
        return Response(200, b'{"choices": [{}]}')


async def test_a_call_survives_the_client_that_started_it() -> None:
    engine = SlowEngine()
    calls = calls_of(engine)
    first = asyncio.ensure_future(calls.answer(KEY, Request()))
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.wait([first])

    engine.ready.set()
    again = await calls.answer(KEY, Request())

    assert isinstance(again, Response)
    assert again.status == 200
    assert engine.requests == 1


async def test_the_counters_of_calls_and_records_are_on_the_page() -> None:
    registry = CollectorRegistry()
    metrics = IdempotencyMetrics(registry)
    store = MemoryIdempotencyStore(ttl_s=60, bytes_max=1 << 20)
    engine = Engine(EVENT, DONE)
    limits = InFlightLimits(1 << 20, 60.0, 8)
    calls = InFlightCalls(store, engine.answer, limits=limits, metrics=metrics)
    for digest in (b"digest", b"digest", b"other"):
        try:
            found = await calls.answer(IdempotencyKey(b"name", digest), Request())
        except GatewayError:
            continue
        assert isinstance(found, StreamingResponse)
        await read(found)

    page = generate_latest(registry).decode()

    for outcome, count in (("dispatched", 1), ("replayed", 1), ("refused", 1), ("bypassed", 0)):
        assert f'sage_gateway_ledger_calls_total{{outcome="{outcome}"}} {count}.0' in page
    assert "sage_gateway_ledger_records_total 1.0" in page
