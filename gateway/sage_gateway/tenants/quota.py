"""Quota: holds what a call may cost, passes it on, and charges its actual cost.

Only calls that reach an engine are charged: an answer that is replayed, or coalesced with the same
call in flight, is free. A client that disconnects pays for what was generated until then. Calls of
a key and a tenant without a budget are only counted; a crash may lose a second of these counts,
never of a budget.
"""

import asyncio
from collections.abc import Collection, Mapping

from prometheus_client import CollectorRegistry, Counter

from sage_flink.common import StoreUnavailable
from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.controlplane.pool import Pool
from sage_gateway.observability.request_tracker import status_after
from sage_gateway.openai.routes import collection_of
from sage_gateway.openai.schema import GenerationRequest, RerankRequest, SearchRequest
from sage_gateway.requests.request import ApiKey, Handler, Request
from sage_gateway.requests.response import NO_TOKENS, Response, StreamingResponse
from sage_gateway.tenants.cost import embedding, generation, pipeline, rerank
from sage_gateway.tenants.keys import NO_LIMITS
from sage_gateway.tenants.limits import Cost, LimitRefusal, has_rate, has_token_budget
from sage_gateway.tenants.store_protocol import Hold, MeteredCall
from sage_gateway.tenants.tenants import Tenants, account_name
from sage_gateway.tenants.usage_charge import UsageCharge, budget_unavailable

JOBS_MAX = 1000


class Quota:
    """Handler that keeps keys and tenants to their limits.

    ``pipelines``: the names of the pipelines that are served as models.
    """

    def __init__(
        self,
        tenants: Tenants,
        limits: Mapping[str, LimitsSpec],
        pool: Pool,
        registry: CollectorRegistry,
        next_: Handler,
        *,
        pipelines: Collection[str] = (),
    ) -> None:
        self._tenants = tenants
        self._limits = limits
        self._pool = pool
        self._pipelines = pipelines
        self._next = next_
        self._jobs: set[str] = set()
        self._refusals = Counter(
            "sage_gateway_limits_refused",
            "Calls refused because of a limit",
            ["limit"],
            registry=registry,
        )

    async def handle(self, request: Request) -> Response | StreamingResponse:
        """The answer of the next handler, charged before its end.

        Raises:
            QuotaExceeded: a limit or a budget is used up.
            StoreAway: a budget cannot be looked up, or its charge cannot be written.
            GatewayError: as the next handler.
        """
        found = self._cost(request)
        if found is None:  # inference returns the error
            return await self._next.handle(request)
        model, cost = found
        key = request.key
        assert key is not None, "requests without a key are refused before"
        hold = await self._hold(request, key, cost)
        payer = request.tenant, key.id, model, self._job(request.job)
        charge = UsageCharge(self._tenants, payer, hold, cost, request.body)
        try:
            answer = await self._next.handle(request)
        except asyncio.CancelledError:
            await charge.hang_up(request.progress.used if request.progress.hung_up else NO_TOKENS)
            raise
        except BaseException:
            charge.cancel()
            raise
        if isinstance(answer, StreamingResponse):
            answer.observe(charge)
            return answer
        try:
            await charge.response(answer)
        except BaseException as error:
            request.end(status_after(error))
            raise
        request.end(answer.status, answer.used)
        return answer

    async def _hold(self, request: Request, key: ApiKey, cost: Cost) -> Hold | None:
        """The hold of ``cost``; None without limits, or with rates only while the store is down."""
        limits = self._limits.get(request.tenant, NO_LIMITS)
        budget = has_token_budget(key.limits) or has_token_budget(limits)
        if not budget and not has_rate(key.limits) and not has_rate(limits):
            return None
        record_key = request.record_key if budget else b""
        call = MeteredCall(key.id, key.limits, request.tenant, limits, cost, record_key)
        try:
            found = await self._tenants.store.admit(call)
        except StoreUnavailable as error:
            if budget:
                raise budget_unavailable() from error
            return None
        if isinstance(found, LimitRefusal):
            self._refusals.labels(found.limit).inc()
            raise found.error()
        return found

    def _cost(self, request: Request) -> tuple[str, Cost] | None:
        """The model that will answer, and the cost; None if the model does not exist."""
        payload, body = request.payload, request.body
        assert payload is not None, "requests that cannot be read are refused before"
        if isinstance(payload, SearchRequest):
            collection = collection_of(request.path) or ""
            return self._pool.spec.embedding_of(collection), embedding(body)
        model = self._pool.find(payload.model)
        if model is None and payload.model not in self._pipelines:
            return None
        name = model.name if model else payload.model
        if isinstance(payload, RerankRequest):
            return name, rerank(payload, body)
        generates = model is None or model.spec.kind == "chat"
        if not generates or not isinstance(payload, GenerationRequest):
            return name, embedding(body)
        if model is None:
            return name, pipeline(payload, body, self._pool.context_tokens_max())
        return name, generation(payload, body, model.spec.context_tokens)

    def _job(self, name: str) -> str:
        """The job's name in the usage; beyond ``JOBS_MAX`` names it is ``other``."""
        if not name:
            return ""
        job = account_name(name)
        if job not in self._jobs and len(self._jobs) >= JOBS_MAX:
            return "other"
        self._jobs.add(job)
        return job
