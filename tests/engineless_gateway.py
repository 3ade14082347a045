"""A gateway without engines, and what it counts: its models answer with one event."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Self

import httpx
from app_server import serve_app
from typing_extensions import override

from sage_flink.common import StoreUnavailable
from sage_gateway.cache import ResponseCache
from sage_gateway.cache.memory import MemoryCacheStore
from sage_gateway.config.pool_spec import LimitsSpec, PoolSpec
from sage_gateway.config.storage_spec import CacheSpec, LedgerSpec
from sage_gateway.controlplane.pool import Pool
from sage_gateway.engines import KNOWN
from sage_gateway.http.asgi_app import GatewayApp
from sage_gateway.idempotency import Idempotency
from sage_gateway.inference.inference import Inference
from sage_gateway.inference.request_pipeline import RequestPipeline
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
        self.ends.append((complete, facts.is_broken))


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
        client = httpx.AsyncClient(base_url=self.server.url, verify=False)
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
