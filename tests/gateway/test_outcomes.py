"""Each request is counted and logged once, with the status that its client gets."""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import httpx
import orjson
import pytest
from app_server import serve_app
from typing_extensions import override

from sage_flink.common import StoreUnavailable
from sage_gateway.batches.batch_store import OwnedBatch
from sage_gateway.batches.schema import Batch
from sage_gateway.cache import ResponseCache
from sage_gateway.cache.memory import MemoryCacheStore
from sage_gateway.config.pool_spec import LimitsSpec, PoolSpec
from sage_gateway.config.storage_spec import CacheSpec, LedgerSpec
from sage_gateway.controlplane.pool import Pool
from sage_gateway.engines import KNOWN
from sage_gateway.errors import EngineFailed
from sage_gateway.http.asgi_app import GatewayApp
from sage_gateway.idempotency import Idempotency
from sage_gateway.inference.inference import Inference
from sage_gateway.inference.request_pipeline import BatchRequests, RequestPipeline
from sage_gateway.observability.logs import RequestLog
from sage_gateway.observability.metrics import Metrics
from sage_gateway.observability.request_tracker import RequestTracker, RequestTracking
from sage_gateway.openai.schema import ModelRequest
from sage_gateway.requests.request import Request
from sage_gateway.requests.response import DONE, Response, StreamFacts, StreamingResponse
from sage_gateway.tenants import Keys, Tenants
from sage_gateway.tenants.memory import MemoryTenantStore
from sage_gateway.tenants.quota import Quota

KEY = "sk-sage-test"
CHAT = "/v1/chat/completions"
EVENT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
BUDGET = LimitsSpec(tokens_per_day=1_000_000)


class AwayStore(MemoryTenantStore):
    """A store that is unavailable for the methods in ``away``."""

    def __init__(self) -> None:
        super().__init__()
        self.away: set[str] = set()

    @override
    async def admit(self, call: Any) -> Any:
        if "admit" in self.away:
            raise StoreUnavailable("it is away")
        return await super().admit(call)

    @override
    async def settle(self, held: Any, charge: Any) -> None:
        if "settle" in self.away:
            raise StoreUnavailable("it is away")
        await super().settle(held, charge)


class Models:
    """Answers with one event, whole or as a stream; ``error`` is raised instead."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.hangs = False
        self.observer: Observer | None = None
        self.requests = 0

    async def answer(
        self, request: Request, payload: ModelRequest, tracker: RequestTracker
    ) -> Response | StreamingResponse:
        self.requests += 1
        tracker.model = payload.model
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if not getattr(payload, "stream", False):
            if self.hangs:
                await self._hang(request)
            return Response(200, b'{"choices":[{}]}', used={"in": 3, "out": 2})
        events = self._events()
        found = StreamingResponse(events, events.aclose)
        if self.observer is not None:
            found.observe(self.observer)
        return found

    async def _hang(self, request: Request) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            request.progress.add({"in": 3, "out": 2})

    async def _events(self) -> Any:
        yield EVENT
        if self.hangs:
            await asyncio.Event().wait()
        yield DONE


class Observer:
    """Notes how a stream ended."""

    def __init__(self) -> None:
        self.ends: list[tuple[bool, bool]] = []

    async def before_done(self, facts: StreamFacts, chunk: bytes) -> None:
        pass

    async def on_end(self, facts: StreamFacts, *, complete: bool) -> None:
        self.ends.append((complete, facts.broken))


class Outcomes(contextlib.AsyncExitStack):
    """A gateway without engines, and what it counted; enter it to serve."""

    def __init__(self, limits: LimitsSpec, folder: Path) -> None:
        super().__init__()
        spec = PoolSpec.model_validate({"models": {"talk": {"engine": "fake", "kind": "chat"}}})
        pool = Pool(spec, KNOWN, models=folder, logs=folder)
        self.metrics = Metrics(pool)
        self.models, self.store = Models(), AwayStore()
        self.tenants = Tenants(Keys.of(KEY), self.store)
        registry = self.metrics.registry
        tracking = RequestTracking(self.metrics, RequestLog(every=True))
        inference = Inference(tracking, self.models)  # type: ignore[arg-type]
        quota = Quota(self.tenants, {"local": limits}, pool, registry, inference)
        self.idempotency = Idempotency(LedgerSpec(), folder, registry, quota)
        store = MemoryCacheStore(bytes_max=1 << 20)
        cache = ResponseCache(CacheSpec(), store, registry, self.idempotency)
        self.handler = RequestPipeline(cache, inference, tracking)
        self.app = GatewayApp(self.tenants, self.handler, self.no_admin, file_bytes_max=1)

    @override
    async def __aenter__(self) -> Self:
        await self.idempotency.open()
        self.push_async_callback(self.idempotency.close)
        self.server = await self.enter_async_context(serve_app(self.app))
        client = httpx.AsyncClient(base_url=self.server.url)
        self.client = await self.enter_async_context(client)
        return self

    async def no_admin(self, *_: object) -> None:
        raise AssertionError("no test asks for it")

    async def ask(self, content: str = "hi", **more: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {KEY}", **more.pop("headers", {})}
        body = {"model": "talk", "messages": [{"role": "user", "content": content}], **more}
        return await self.client.post(CHAT, json=body, headers=headers)

    def counts(self) -> dict[tuple[str, str], float]:
        """The number of requests by model and status."""
        assert "sage_gateway_in_flight 0.0" in self.metrics.page().decode()
        return {(model, str(status)): n for (_, model, status), n in self.metrics.requests.items()}


@pytest.fixture
async def outcomes(tmp_path: Path) -> AsyncIterator[Outcomes]:
    """A gateway whose tenant has a budget."""
    async with Outcomes(BUDGET, tmp_path) as found:
        yield found


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """A function with the status and the request id of each line of the request log."""
    caplog.set_level(logging.INFO)

    def found() -> list[tuple[int, str]]:
        fields = [r.fields for r in caplog.records if r.name == "sage.gateway.requests"]
        return [(one["status"], one.get("request_id", "")) for one in fields]

    return found


def id_headers(with_id: bool) -> dict[str, str]:
    return {"x-request-id": uuid.uuid4().hex} if with_id else {}


WITH_AND_WITHOUT_ID = pytest.mark.parametrize("with_id", [False, True])


@WITH_AND_WITHOUT_ID
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_counted_once(
    outcomes: Outcomes, lines: Any, with_id: bool, stream: bool
) -> None:
    headers = id_headers(with_id)

    answer = await outcomes.ask(headers=headers, stream=stream)

    assert answer.status_code == 200
    assert outcomes.counts() == {("talk", "200"): 1}
    assert lines() == [(200, answer.headers["x-request-id"])]


@WITH_AND_WITHOUT_ID
async def test_a_budget_that_cannot_be_looked_up_is_a_503_that_is_counted(
    outcomes: Outcomes, lines: Any, with_id: bool
) -> None:
    outcomes.store.away.add("admit")
    headers = id_headers(with_id)

    answer = await outcomes.ask(headers=headers)

    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "budget_unavailable"
    assert outcomes.counts() == {("-", "503"): 1}
    assert lines() == [(503, answer.headers["x-request-id"])]
    assert outcomes.models.requests == 0


async def test_a_line_of_a_batch_without_a_budget_is_counted(outcomes: Outcomes) -> None:
    outcomes.store.away.add("admit")
    batch = Batch(
        id="batch_1",
        endpoint=CHAT,
        input_file_id="file_1",
        completion_window="24h",
        created_at=0,
        expires_at=1,
    )
    line = b'{"model": "talk", "messages": [{"role": "user", "content": "x"}]}'

    batches = BatchRequests(outcomes.tenants.keys, outcomes.handler)
    answer = await batches.answer(OwnedBatch("local", "local", batch), CHAT, "line-1", line)

    assert answer.status == 503
    assert outcomes.counts() == {("-", "503"): 1}


@WITH_AND_WITHOUT_ID
async def test_a_refusal_of_the_quota_is_counted(tmp_path: Path, lines: Any, with_id: bool) -> None:
    async with Outcomes(LimitsSpec(requests_per_minute=1), tmp_path) as outcomes:
        answers = [await outcomes.ask(headers=id_headers(with_id)) for _ in range(2)]

        assert [answer.status_code for answer in answers] == [200, 429]
        assert outcomes.counts() == {("talk", "200"): 1, ("-", "429"): 1}
        assert [status for status, _ in lines()] == [200, 429]


async def test_a_reused_idempotency_key_is_counted(outcomes: Outcomes, lines: Any) -> None:
    headers = {"idempotency-key": "order 66"}

    answers = [await outcomes.ask(content, headers=headers) for content in ("mine", "yours")]

    assert [answer.status_code for answer in answers] == [200, 422]
    assert outcomes.counts() == {("talk", "200"): 1, ("-", "422"): 1}
    assert [status for status, _ in lines()] == [200, 422]


@WITH_AND_WITHOUT_ID
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_cannot_be_charged_is_counted_as_the_503_that_it_becomes(
    outcomes: Outcomes, lines: Any, with_id: bool, stream: bool
) -> None:
    outcomes.store.away.add("settle")

    answer = await outcomes.ask(headers=id_headers(with_id), stream=stream)

    assert "budget_unavailable" in answer.text
    assert answer.status_code == (200 if stream else 503)
    assert outcomes.counts() == {("talk", "503"): 1}
    assert [status for status, _ in lines()] == [503]


@WITH_AND_WITHOUT_ID
async def test_an_error_of_the_engine_is_counted_once(
    outcomes: Outcomes, lines: Any, with_id: bool
) -> None:
    outcomes.models.error = EngineFailed("it failed")

    answer = await outcomes.ask(headers=id_headers(with_id))

    assert answer.status_code == 502
    assert outcomes.counts() == {("talk", "502"): 1}
    assert [status for status, _ in lines()] == [502]


async def test_a_request_that_cannot_be_read_is_counted_once(
    outcomes: Outcomes, lines: Any
) -> None:
    answer = await outcomes.ask(messages="hi")

    assert answer.status_code == 400
    assert outcomes.counts() == {("-", "400"): 1}
    assert [status for status, _ in lines()] == [400]


async def test_each_client_of_a_joined_call_that_fails_is_counted(outcomes: Outcomes) -> None:
    outcomes.models.error = EngineFailed("it failed")
    headers = id_headers(with_id=True)

    answers = await asyncio.gather(*(outcomes.ask(headers=headers) for _ in range(3)))

    assert [answer.status_code for answer in answers] == [502, 502, 502]
    assert outcomes.models.requests == 1
    assert outcomes.counts() == {("talk", "502"): 1, ("-", "502"): 2}


async def test_a_replayed_answer_is_counted_by_the_ledger_only(outcomes: Outcomes) -> None:
    headers = id_headers(with_id=True)

    answers = [await outcomes.ask(headers=headers) for _ in range(2)]

    assert answers[1].headers["x-sage-ledger"] == "hit"
    assert outcomes.counts() == {("talk", "200"): 1}


async def test_the_seconds_of_an_error_include_the_wait_for_it(
    outcomes: Outcomes, lines: Any, caplog: pytest.LogCaptureFixture
) -> None:
    class SlowStore(AwayStore):
        @override
        async def admit(self, call: Any) -> Any:
            await asyncio.sleep(0.2)
            raise StoreUnavailable("it is away")

    outcomes.tenants.store = SlowStore()

    await outcomes.ask()

    [line] = [r for r in caplog.records if r.name == "sage.gateway.requests"]
    assert line.fields["seconds"] >= 0.2  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def answer_in_progress(
    outcomes: Outcomes, *, stream: bool
) -> AsyncIterator[asyncio.Task[None]]:
    """The task that answers, of a stream one event; later the client leaves."""
    outcomes.models.hangs, outcomes.models.observer = True, Observer()
    message = {"role": "user", "content": "x"}
    body = orjson.dumps({"model": "talk", "stream": stream, "messages": [message]})
    lines = [
        f"POST {CHAT} HTTP/1.1",
        f"authorization: Bearer {KEY}",
        f"content-length: {len(body)}",
    ]
    head = "\r\n".join(lines) + "\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", outcomes.server.port)
    writer.write(head.encode() + body)
    if stream:
        await reader.readuntil(EVENT)
    while not outcomes.models.requests:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    [task] = outcomes.server.tasks
    yield task
    writer.close()
    await asyncio.wait([task])


async def test_a_stream_that_the_stopping_gateway_cuts_is_not_charged(outcomes: Outcomes) -> None:
    async with answer_in_progress(outcomes, stream=True) as task:
        task.cancel()
        await asyncio.wait([task])

    assert task.cancelled()
    assert outcomes.models.observer is not None
    assert outcomes.models.observer.ends == [(False, True)]
    assert await spent_tokens(outcomes) == 0
    assert outcomes.counts() == {("talk", "503"): 1}


async def test_a_stream_that_its_client_leaves_is_charged(outcomes: Outcomes) -> None:
    async with answer_in_progress(outcomes, stream=True) as task:
        pass

    assert not task.cancelled()
    assert outcomes.models.observer is not None
    assert outcomes.models.observer.ends == [(False, False)]
    assert await spent_tokens(outcomes) > 0
    assert outcomes.counts() == {("talk", "499"): 1}


async def test_a_whole_answer_that_the_stopping_gateway_cuts_is_not_charged(
    outcomes: Outcomes,
) -> None:
    async with answer_in_progress(outcomes, stream=False) as task:
        task.cancel()
        await asyncio.wait([task])

    assert await spent_tokens(outcomes) == 0


async def test_a_whole_answer_that_its_client_leaves_is_charged_as_far_as_it_was(
    outcomes: Outcomes,
) -> None:
    async with answer_in_progress(outcomes, stream=False):
        pass

    assert await spent_tokens(outcomes) == 5
    assert outcomes.counts() == {("talk", "499"): 1}


async def spent_tokens(outcomes: Outcomes) -> int:
    """The tokens charged to all keys."""
    await outcomes.tenants.flush()
    return sum(charge.tokens for charge in await outcomes.store.usage(0, 99_999_999))
