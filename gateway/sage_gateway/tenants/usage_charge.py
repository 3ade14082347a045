"""The charge for one call: written before its answer is complete, whatever the answer is."""

import contextlib
import time
from typing import Protocol

from sage_flink.common import StoreUnavailable
from sage_gateway.errors import GatewayError, StoreAway
from sage_gateway.requests.response import Response, StreamFacts
from sage_gateway.tenants.cost import Used, used
from sage_gateway.tenants.limits import Cost, budgeted, period
from sage_gateway.tenants.store_protocol import Call, Charge, Held, Row

#: Tenant, key, model and job that a call is charged to.
Payer = tuple[str, str, str, str]


class Accounts(Protocol):
    """Where charges are written to."""

    def count(self, payer: Payer, counts: tuple[int, int, int]) -> None:
        """Count requests, prompt and completion tokens of a call without limits."""

    def settle_later(self, held: Held, charge: Charge | None) -> None:
        """End a hold without waiting for the store."""

    async def settle(self, held: Held, charge: Charge) -> None:
        """End a hold and charge the call; on return the charge outlives ``kill -9``."""


class UsageCharge:
    """One call's charge, made once; an observer of its stream.

    ``held``: what was held back before the call; None where the account has no limits.
    """

    __slots__ = ("_accounts", "_body", "_cost", "_held", "_open", "_payer")

    def __init__(
        self, accounts: Accounts, payer: Payer, held: Held | None, cost: Cost, body: bytes
    ) -> None:
        self._accounts = accounts
        self._payer = payer
        self._held = held
        self._cost = cost
        self._body = body
        self._open = True

    async def response(self, found: Response) -> None:
        """Charge a whole answer.

        Raises:
            StoreAway: a budget's charge could not be written.
        """
        await self._charge(used(found.used, body=self._body, deltas=0, most=self._cost.most))

    def cancel(self) -> None:
        """Charge nothing: there is no answer."""
        self._open = False
        if self._held is not None:
            self._accounts.settle_later(self._held, None)

    async def before_done(self, facts: StreamFacts, chunk: bytes) -> None:
        """Charge the stream before its last event.

        Raises:
            StoreAway: a budget's charge could not be written.
        """
        await self._charge_stream(facts)

    async def on_end(self, facts: StreamFacts, *, complete: bool) -> None:
        """Charge a stream that did not reach its last event.

        A client that disconnects pays for the events so far, a token each; a stream that the engine
        broke off costs nothing.
        """
        with contextlib.suppress(GatewayError):  # the client is not there to see it
            await self._charge_stream(facts)

    async def _charge_stream(self, facts: StreamFacts) -> None:
        if not self._open:
            return
        if facts.broken or not facts.events:
            self.cancel()
            return
        most = self._cost.most
        await self._charge(used(facts.used, body=self._body, deltas=facts.events, most=most))

    async def _charge(self, spent: Used) -> None:
        self._open = False
        if self._held is None:
            self._accounts.count(self._payer, (1, spent.prompt_tokens, spent.completion_tokens))
            return
        day, _ = period(time.time())
        charge = Charge(Row(day, *self._payer), 1, spent.prompt_tokens, spent.completion_tokens)
        if not has_budget(self._held.call):
            self._accounts.settle_later(self._held, charge)
            return
        try:
            await self._accounts.settle(self._held, charge)
        except StoreUnavailable as error:
            raise budget_unavailable() from error


def has_budget(call: Call) -> bool:
    """Whether the key or the tenant of a call has a token budget."""
    return budgeted(call.key_limits) or budgeted(call.tenant_limits)


def budget_unavailable() -> StoreAway:
    """The store of the budgets does not respond; without it no budget can be kept to."""
    return StoreAway(
        "the store of the budgets does not answer now; try again, and see the gateway's log",
        code="budget_unavailable",
        retry_after_s=2,
    )
