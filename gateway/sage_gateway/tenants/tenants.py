"""Tenants as the front uses them: who may ask, and what each call to an engine costs whom.

Only calls that reach an engine are held and paid for: what the ledger replays, or lets join a
running call, costs nothing. A key without limits, whose tenant has none, is only counted, and its
counts are written every second; a crash may lose that second of the statistics, never of a budget.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from prometheus_client import Counter

from sage_flink.common import StoreUnavailable
from sage_gateway.errors import GatewayError, StoreAway
from sage_gateway.inference.service import MODEL_ROUTES, SEARCH, STORES, Service
from sage_gateway.openai.schema import CostAsk, parsed
from sage_gateway.requests.response import Answer, Stream
from sage_gateway.tenants import scopes, usage_charge
from sage_gateway.tenants.cost import Used, embedding, generation
from sage_gateway.tenants.keys import NO_LIMITS, Key, Keys, Scope
from sage_gateway.tenants.limits import Cost, Refusal, budgeted, limited, period
from sage_gateway.tenants.store_protocol import Call, Charge, Held, Row, Store, summed

log = logging.getLogger("sage.gateway")

TICK_S = 1.0
JOBS_MAX = 1000
PENDING_MAX = 10_000

Headers = Iterable[tuple[bytes, bytes]]
#: Asks an engine, for this tenant.
Ask = Callable[[str], Awaitable[Answer | Stream]]
#: Tenant, key, model and job: who a call is put down to.
Whose = tuple[str, str, str, str]


class Tenants:
    """``open`` on the loop that serves. Keys that were read are known while the store is away."""

    def __init__(self, keys: Keys, store: Store, service: Service) -> None:
        self.keys = keys
        self.store = store
        self._service = service
        self._limits = service.pool.spec.tenants
        self._refused = Counter(
            "sage_gateway_limits_refused",
            "Calls that a limit stood against",
            ["limit"],
            registry=service.metrics.registry,
        )
        self._jobs: set[str] = set()
        self._pending: dict[Whose, tuple[int, int, int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.Task[None] | None = None
        self._away = False

    async def open(self) -> None:
        """Open the store, read the keys, and look after both from now on."""
        with self._forgiven():
            await self.store.open()
        with self._forgiven():
            await self.refresh()
        self._ticking = asyncio.create_task(self._tick(), name="tenants")

    async def close(self) -> None:
        """Write what is counted and close the store."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with self._forgiven():
            await self.flush()
        await self.store.close()

    async def refresh(self) -> None:
        """Know the keys that the store has now; other gateways' are known within ``TICK_S``."""
        self.keys.replace(await self.store.keys())

    async def flush(self) -> None:
        """Write what was counted since the last time."""
        pending, self._pending = self._pending, {}
        day, _ = period(time.time())
        charges = [Charge(Row(day, *whose), *counts) for whose, counts in pending.items()]
        try:
            if charges:
                await self.store.add(summed(charges))
        except StoreUnavailable:
            for whose, counts in pending.items():
                self._count(whose, counts)
            raise

    def admit(self, path: str, headers: Headers) -> Key:
        """The key of a request to ``path``.

        Raises:
            GatewayError: 401, 403.
        """
        return scopes.check(self.keys.find(headers), path)

    async def answer(
        self, key: Key, path: str, headers: Headers, body: bytes, ask: Ask, *, once: bytes = b""
    ) -> Answer | Stream:
        """The answer by ``ask``, held before and paid after.

        ``once`` names the call, where the ledger keeps its answer over a crash.

        Raises:
            GatewayError: 400, 429 a limit stands against it, 503 its budget cannot be looked after.
        """
        found = self._cost(path, body)
        if found is None:  # the service says why
            return await ask(key.tenant)
        model, cost = found
        named = dict(headers)
        tenant = tenant_of(key, named)
        whose = tenant, key.id, model, self._job(named)
        held = await self._held(key, tenant, cost, once)
        if held is None:
            pay: usage_charge.Pay = partial(self._counted, whose)
        else:
            pay = partial(self._paid, held, whose)
        try:
            answer = await ask(tenant)
        except BaseException:
            if held is not None:
                self._later(self.store.settle(held, None))
            raise
        if isinstance(answer, Answer):
            return await usage_charge.whole(answer, body, cost, pay)
        return usage_charge.streamed(answer, body, cost, pay)

    async def _held(self, key: Key, tenant: str, cost: Cost, once: bytes) -> Held | None:
        """The cost, held; None where no limit is set, or only rates and their store is away."""
        limits = self._limits.get(tenant, NO_LIMITS)
        if not limited(key.limits) and not limited(limits):
            return None
        budget = budgeted(key.limits) or budgeted(limits)
        call = Call(key.id, key.limits, tenant, limits, cost, once if budget else b"")
        try:
            found = await self.store.admit(call)
        except StoreUnavailable as error:
            if budget:
                raise _unkept() from error
            return None
        if isinstance(found, Refusal):
            self._refused.labels(found.limit).inc()
            raise found.error()
        return found

    async def _paid(self, held: Held, whose: Whose, used: Used | None) -> None:
        """Settle; only a budget is waited for.

        Raises:
            GatewayError: 503, a budget's charge could not be written.
        """
        if used is None:
            self._later(self.store.settle(held, None))
            return
        day, _ = period(time.time())
        charge = Charge(Row(day, *whose), 1, used.prompt_tokens, used.completion_tokens)
        if not _has_budget(held.call):
            self._later(self.store.settle(held, charge))
            return
        try:
            await self.store.settle(held, charge)
        except StoreUnavailable as error:
            raise _unkept() from error

    async def _counted(self, whose: Whose, used: Used | None) -> None:
        if used is not None:
            self._count(whose, (1, used.prompt_tokens, used.completion_tokens))

    def _count(self, whose: Whose, counts: tuple[int, int, int]) -> None:
        if whose in self._pending or len(self._pending) < PENDING_MAX:
            a, b, c = self._pending.get(whose, (0, 0, 0))
            self._pending[whose] = (a + counts[0], b + counts[1], c + counts[2])

    def _cost(self, path: str, body: bytes) -> tuple[str, Cost] | None:
        """The model that will answer, and the cost; None for one that there is not.

        Raises:
            GatewayError: 400, the body cannot be read.
        """
        pool = self._service.pool
        if path not in MODEL_ROUTES:
            return pool.spec.embedding_of(path[len(STORES) : -len(SEARCH)]), embedding(body)
        ask = parsed(body, CostAsk)
        model = pool.find(ask.model)
        if model is None:
            if ask.model not in self._service.mounts:
                return None
            return ask.model, generation(ask, body, self._service.pool.context_tokens_max())
        if model.spec.kind != "chat":
            return model.name, embedding(body)
        return model.name, generation(ask, body, model.spec.context_tokens)

    def _job(self, headers: Mapping[bytes, bytes]) -> str:
        """The job that asks, of ``JOBS_MAX`` different ones; whoever comes later is ``other``."""
        shown = headers.get(b"x-sage-job")
        if not shown:
            return ""
        job = _name(shown)
        if job not in self._jobs and len(self._jobs) >= JOBS_MAX:
            return "other"
        self._jobs.add(job)
        return job

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for work in (self.flush, self.refresh):
                with self._forgiven():
                    await work()

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it without waiting: the answer does not depend on it."""

        async def done() -> None:
            with self._forgiven():
                await work

        task = asyncio.create_task(done())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextlib.contextmanager
    def _forgiven(self) -> Iterator[None]:
        """A store that is away is told of once, until it is back."""
        try:
            yield
        except StoreUnavailable as error:
            if not self._away:
                log.warning("tenants: %s; budgets answer 503, usage waits", error)
            self._away = True
        else:
            self._away = False


def tenant_of(key: Key, headers: Mapping[bytes, bytes]) -> str:
    """The key's own; an admin's key, such as a job's, may ask for another."""
    named = headers.get(b"x-sage-tenant")
    return _name(named) if named and key.may(Scope.ADMIN) else key.tenant


def _name(shown: bytes) -> str:
    text = shown.decode("ascii", "replace")[:128]
    return re.sub(r"[^A-Za-z0-9._:/-]", "_", text)


def _has_budget(call: Call) -> bool:
    return budgeted(call.key_limits) or budgeted(call.tenant_limits)


def _unkept() -> GatewayError:
    return StoreAway(
        "the store of the budgets does not answer now; try again, and see the gateway's log",
        code="budget_unavailable",
        retry_after_s=2,
    )
