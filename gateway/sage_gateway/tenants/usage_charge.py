"""The charge for one call: written before its answer is complete, whatever the answer is."""

import contextlib
import time
from collections.abc import Awaitable, Mapping
from typing import Protocol

from sage_flink.common import StoreUnavailable
from sage_gateway.errors import GatewayError, StoreAway
from sage_gateway.requests.response import Response, StreamFacts
from sage_gateway.tenants.cost import TokenUsage, token_usage
from sage_gateway.tenants.limits import Cost, has_token_budget, period
from sage_gateway.tenants.store_protocol import Charge, Hold, MeteredCall, UsageKey

#: Tenant, key, model and job that a call is charged to.
Payer = tuple[str, str, str, str]


class Accounts(Protocol):
    """Where charges are written to."""

    def count(self, payer: Payer, counts: tuple[int, int, int]) -> None:
        """Count requests, prompt and completion tokens of a call without a budget."""

    def release(self, hold: Hold, tokens: int) -> None:
        """End a hold without waiting for the store."""

    def settle(self, hold: Hold, charge: Charge) -> Awaitable[None]:
        """End a hold and charge the call; once awaited, the charge survives ``kill -9``."""


class UsageCharge:
    """The charge for one call, written once; an observer of its stream.

    ``hold``: the cost hold before the call; None if the account has no limits.
    """

    __slots__ = ("_accounts", "_body", "_cost", "_hold", "_open", "_payer")

    def __init__(
        self, accounts: Accounts, payer: Payer, hold: Hold | None, cost: Cost, body: bytes
    ) -> None:
        self._accounts = accounts
        self._payer = payer
        self._hold = hold
        self._cost = cost
        self._body = body
        self._open = True

    async def response(self, found: Response) -> None:
        """Charge a whole answer.

        Raises:
            StoreAway: a budget's charge could not be written.
        """
        await self._charge(token_usage(found.used, body=self._body, deltas=0, most=self._cost.most))

    def cancel(self) -> None:
        """Release the hold without a charge: the call has no answer."""
        self._open = False
        if self._hold is not None:
            self._accounts.release(self._hold, 0)

    async def hang_up(self, used: Mapping[str, int]) -> None:
        """Charge what was generated until the client disconnected from a whole answer."""
        if not used:
            self.cancel()
            return
        most = self._cost.most
        with contextlib.suppress(GatewayError):
            await self._charge(token_usage(used, body=self._body, deltas=0, most=most))

    async def before_done(self, facts: StreamFacts, chunk: bytes) -> None:
        """Charge the stream before its last event.

        Raises:
            StoreAway: a budget's charge could not be written.
        """
        await self._charge_stream(facts)

    async def on_end(self, facts: StreamFacts, *, complete: bool) -> None:
        """Charge a stream that did not reach its last event.

        A client that disconnects pays for the texts so far, a token each; a stream that the engine
        broke off is not charged.
        """
        with contextlib.suppress(GatewayError):  # the client has disconnected
            await self._charge_stream(facts)

    async def _charge_stream(self, facts: StreamFacts) -> None:
        if not self._open:
            return
        if facts.is_broken or not facts.events:
            self.cancel()
            return
        deltas = facts.deltas or (0 if facts.used else facts.events)
        most = self._cost.most
        await self._charge(token_usage(facts.used, body=self._body, deltas=deltas, most=most))

    async def _charge(self, spent: TokenUsage) -> None:
        self._open = False
        counts = 1, spent.prompt_tokens, spent.completion_tokens
        if self._hold is None or not has_budget(self._hold.call):
            self._accounts.count(self._payer, counts)
            if self._hold is not None:
                self._accounts.release(self._hold, spent.total)
            return
        day, _ = period(time.time())
        try:
            await self._accounts.settle(self._hold, Charge(UsageKey(day, *self._payer), *counts))
        except StoreUnavailable as error:
            raise budget_unavailable() from error


def has_budget(call: MeteredCall) -> bool:
    """Whether the key or the tenant of a call has a token budget."""
    return has_token_budget(call.key_limits) or has_token_budget(call.tenant_limits)


def budget_unavailable() -> StoreAway:
    """The error of a call with a budget, while the store of the budgets is unavailable."""
    return StoreAway(
        "the store of the budgets does not answer now; try again, and see the gateway's log",
        code="budget_unavailable",
        retry_after_s=2,
    )
