"""Every route that answers with a model: read the request, find who answers, account for it.

HTTP (:mod:`front`) and mounted pipelines (:mod:`transport`) call the same :meth:`Service.answer`.
"""

import logging
import time
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import NamedTuple

import orjson

from sage_flink.common import PoolError, PoolTimeout, Rejected, Retryable
from sage_gateway.controlplane.pool import Pool
from sage_gateway.errors import (
    EngineTimeout,
    GatewayError,
    InternalError,
    InvalidRequest,
    NoReplica,
    NotFound,
    StoreAway,
)
from sage_gateway.forwarding.forwarder import Proxy
from sage_gateway.models.model import Model
from sage_gateway.observability.metrics import Metrics, Watch
from sage_gateway.observability.tracing import Tracing
from sage_gateway.openai.error_table import error_of, status_of
from sage_gateway.openai.schema import (
    ChatAsk,
    CompletionAsk,
    EmbeddingsAsk,
    ModelAsk,
    RerankAsk,
    SearchAsk,
    loaded,
    parsed,
    renamed,
    texts_only,
    tokens,
    utf8,
)
from sage_gateway.pipelines import registry
from sage_gateway.pipelines.registry import Asker, Mount
from sage_gateway.replay import Recorder
from sage_gateway.requests.response import Answer, Stream, refused
from sage_gateway.scheduling import (
    ANSWER_TOKENS,
    Headers,
    QueuedRequest,
    RequestHints,
    expected_tokens,
    read_hints,
    run_preemptible,
)
from sage_gateway.vector_stores.search import Searches

log = logging.getLogger("sage.gateway")

MODEL_ROUTES: Mapping[str, type[ModelAsk]] = {
    "/v1/chat/completions": ChatAsk,
    "/v1/completions": CompletionAsk,
    "/v1/embeddings": EmbeddingsAsk,
    "/v1/rerank": RerankAsk,
}
KINDS: Mapping[type[ModelAsk], str] = {EmbeddingsAsk: "embedding", RerankAsk: "rerank"}
STORES, SEARCH = "/v1/vector_stores/", "/search"
SEARCH_ROUTE = "/v1/vector_stores/{name}/search"


class Caller(NamedTuple):
    """Who asks, as far as the answer depends on it."""

    request_id: str
    headers: Headers
    tenant: str
    mounted: bool


class Service:
    """The one place where a request meets the pool."""

    def __init__(
        self,
        pool: Pool,
        proxy: Proxy,
        searches: Searches,
        metrics: Metrics,
    ) -> None:
        self.pool = pool
        self.proxy = proxy
        self.searches = searches
        self.metrics = metrics
        self.recorder: Recorder | None = None
        self.tracing: Tracing | None = None
        self.mounts: dict[str, Mount] = {}

    def serves(self, path: str) -> bool:
        """Whether ``POST path`` is one of these routes."""
        return path in MODEL_ROUTES or _collection(path) is not None

    def names(self) -> list[str]:
        """What may stand in ``model``."""
        return [*self.pool.models, *self.mounts]

    def knows(self, model: str) -> bool:
        """Whether this may stand in ``model``, an alias too."""
        return self.pool.find(model) is not None or model in self.mounts

    async def answer(
        self,
        path: str,
        body: bytes,
        *,
        request_id: str = "",
        headers: Headers = (),
        tenant: str = "",
        mounted: bool = True,
    ) -> Answer | Stream:
        """The answer to ``POST path``; an error is one too.

        ``headers``: the caller's, for scheduling and routing. ``tenant``: the caller's, as its key
        has it. ``mounted``: pipelines are models.
        """
        route = path if path in MODEL_ROUTES else SEARCH_ROUTE
        watch = self.metrics.begin(route)
        watch.request_id, watch.tenant = request_id, tenant
        if self.tracing is not None:
            watch.traced = self.tracing.begin(route, headers, tenant=tenant, request_id=request_id)
        try:
            caller = Caller(request_id, headers, tenant, mounted)
            found = await self._dispatch(path, body, caller, watch)
        except Exception as error:
            known = told(error)
            watch.end(status_of(known))
            return refused(known)
        except BaseException:
            watch.end(499)
            raise
        if isinstance(found, Stream):
            watch.began()
            return _accounted(found, watch)
        watch.end(found.status, found.used)
        return found

    async def _dispatch(
        self, path: str, body: bytes, caller: Caller, watch: Watch
    ) -> Answer | Stream:
        utf8(body)
        name = _collection(path)
        if name is not None:
            return await self._search(name, parsed(body, SearchAsk))
        ask = parsed(body, MODEL_ROUTES[path])
        if isinstance(ask, ChatAsk):
            texts_only(ask)
            if caller.mounted and (mount := self.mounts.get(ask.model)):
                watch.model = ask.model
                registry.ASKER.set(Asker.of(caller.tenant, caller.headers, watch.traceparent))
                return await _mounted(mount, ask, loaded(body))
        model = self._model(ask, path)
        watch.model = model.name
        if ask.model != model.engine_model_name():
            body = renamed(body, model.engine_model_name())
        stream = isinstance(ask, ChatAsk | CompletionAsk) and bool(ask.stream)
        forward = partial(
            self.proxy.forward,
            model,
            path,
            body,
            stream=stream,
            request_id=caller.request_id,
            headers=caller.headers,
            traceparent=watch.traceparent,
        )
        wishes = read_hints(caller.headers, caller.tenant)
        expected = _expected(ask, len(body), model)
        ticket = await self._admitted(model, expected, wishes, watch)
        if not (wishes.background and _named(caller)):
            return await forward()

        async def resume() -> None:
            await model.queue.requeue_preempted(wishes, expected)
            if ticket is not None:
                watch.settle = partial(model.queue.record_usage, ticket, time.monotonic())

        return await run_preemptible(model.queue.preemptible, forward, resume)

    async def _admitted(
        self, model: Model, tokens: int, wishes: RequestHints, watch: Watch
    ) -> QueuedRequest | None:
        """Return when a replica has room; it is kept only for who takes it without an await."""
        load = watch.load = model.load
        load.record_request(time.monotonic(), "" if wishes.background else wishes.job)
        if self.recorder is not None:
            watch.taken = self.recorder.start(model.name, wishes, tokens)
        ticket = await model.queue.admit(wishes, tokens)
        if watch.taken is not None:
            watch.taken.mark_dispatched()
        if watch.traced is not None:
            watch.traced.let_go()
        if ticket is None:
            load.waits.add(0.0)
            return None
        now_s = time.monotonic()
        self.metrics.queue_wait.labels(model.name).observe(now_s - ticket.arrived_s)
        watch.settle = partial(model.queue.record_usage, ticket, now_s)
        if not ticket.background:
            load.waits.add(now_s - ticket.arrived_s)
        return ticket

    def _model(self, ask: ModelAsk, path: str) -> Model:
        model = self.pool.find(ask.model)
        if model is None and ask.model not in self.mounts:
            known = ", ".join(self.names())
            raise NotFound(
                f"no model {ask.model!r} here; there are {known}",
                code="model_not_found",
                param="model",
            )
        if model is None or model.spec.kind != KINDS.get(type(ask), "chat"):
            kind = model.spec.kind if model else "mounted pipeline"
            message = f"{ask.model!r} is a {kind} model: it does not answer {path}"
            raise InvalidRequest(message, code="wrong_model_kind", param="model")
        return model

    async def _search(self, name: str, ask: SearchAsk) -> Answer:
        embedder = self.pool.spec.embedding_of(name)
        model = self.pool.find(embedder)
        if model is None or model.spec.dim is None:
            raise NoReplica(
                f"{embedder!r} is no embedding model with a dim in pool.yaml", retry_after_s=30
            )
        return await self.searches.answer(name, ask, embedder, model.spec.dim, self._embed)

    async def _embed(self, model: str, text: str) -> list[float]:
        body = orjson.dumps({"model": model, "input": [text], "encoding_format": "float"})
        found = await self.answer("/v1/embeddings", body, mounted=False)
        assert isinstance(found, Answer)
        page = orjson.loads(found.body)
        if found.status != 200:
            raise PoolError(page["error"]["message"], status=found.status)
        vector: list[float] = page["data"][0]["embedding"]
        return vector


def told(error: BaseException) -> GatewayError:
    """What ``error`` means to a caller; one that nobody expected goes to the log, not to them."""
    match error:
        case GatewayError():
            return error
        case Rejected():
            return InvalidRequest(str(error))
        case PoolTimeout():
            return EngineTimeout(str(error))
        case PoolError() if 400 <= error.status < 500 and error.status != 429:
            return error_of(error.status, str(error))
        case PoolError():
            status = error.status if error.status in (429, 503, 504) else 502
            failed = error_of(status, str(error), code="pool_error")
            failed.retry_after_s = 1
            return failed
        case Retryable():
            return StoreAway(str(error), retry_after_s=2)
    log.error("unexpected error", exc_info=error)
    return InternalError("the gateway failed; its log says why")


async def _mounted(mount: Mount, ask: ChatAsk, body: dict[str, object]) -> Answer | Stream:
    if ask.stream:
        return await registry.streamed(ask.model, mount, ask, body, told)
    return await registry.whole(ask.model, mount, body)


def _accounted(stream: Stream, watch: Watch) -> Stream:
    """The same stream; its account is closed with it, whether it was read to the end or not."""

    async def events() -> AsyncGenerator[bytes, None]:
        count = 0
        used: dict[str, int] = {}
        broken = False
        async for chunk in stream.chunks:
            count += chunk.count(b'"delta":{"content"')
            used = tokens(chunk) or used
            broken = chunk.startswith(b'data: {"error"')
            yield chunk
        watch.end(502 if broken else 200, {"out": count} | used)

    async def close() -> None:
        await counted.aclose()
        await stream.close()
        watch.end(499)

    counted = events()
    return Stream(counted, close)


def _expected(ask: ModelAsk, body_bytes: int, model: Model) -> int:
    """How many tokens it may cost."""
    if isinstance(ask, EmbeddingsAsk | RerankAsk):
        return expected_tokens(body_bytes, 0)
    named = ask.max_completion_tokens if isinstance(ask, ChatAsk) else None
    answer = named or ask.max_tokens or ANSWER_TOKENS
    return expected_tokens(body_bytes, min(answer, model.spec.context_tokens))


def _named(caller: Caller) -> bool:
    """Whether the request has an id, under which it may be asked twice and is answered once."""
    return bool(caller.request_id) or any(name == b"idempotency-key" for name, _ in caller.headers)


def _collection(path: str) -> str | None:
    if path.startswith(STORES) and path.endswith(SEARCH):
        return path[len(STORES) : -len(SEARCH)]
    return None
