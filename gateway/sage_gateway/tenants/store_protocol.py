"""Protocol of the tenants' stores: API keys, account balances and usage.

``memory.py`` is the reference, ``sqlite.py`` the file of one gateway, ``redis.py`` what several
gateways share; ``tests/conformance/test_tenants.py`` tests them all.

**How budgets stay exact through crashes.** Before a call its maximum cost is held; a hold ends with
its gateway. The actual cost is charged before the end of the answer is sent, so every answer is
charged, and a call that died without an answer costs nothing. Two moments remain:

* Between the charge and the record in the idempotency store: the client repeats the call under the
  same id, and the engine generates a second answer. So a call may carry the key of its record
  (``record_key``). When it is admitted again after the gateway that charged it died, that charge is
  reversed, since its answer was lost.
* Between the charge and the client's last byte: the idempotency store has the answer, and replays
  it to the client for free.

A call without an id cannot be recognised; it is charged.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import msgspec

from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.limits import Cost, LimitRefusal


class MeteredCall(msgspec.Struct, frozen=True, gc=False):
    """A call to be admitted: two accounts, each with its limits, and the cost.

    ``record_key``: its key in the idempotency store; empty if its answer is not recorded.
    """

    key: str
    key_limits: LimitsSpec
    tenant: str
    tenant_limits: LimitsSpec
    cost: Cost
    record_key: bytes = b""

    def accounts(self) -> tuple[tuple[str, LimitsSpec], tuple[str, LimitsSpec]]:
        """The names of the two accounts, with their limits."""
        key, tenant = account_names(self.tenant, self.key)
        return (key, self.key_limits), (tenant, self.tenant_limits)


class Hold(msgspec.Struct, frozen=True, gc=False):
    """An admitted call; ``by`` is the gateway life that holds its cost."""

    call: MeteredCall
    by: str


class UsageKey(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The key that usage is summed by; ``day`` is as 20261124."""

    day: int
    tenant: str
    key: str
    model: str
    job: str


class Charge(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Usage: a number of requests and of tokens."""

    row: UsageKey
    requests: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together."""
        return self.prompt_tokens + self.completion_tokens


class TenantStore(Protocol):
    """API keys, account balances and usage; all methods are called on one event loop.

    All but ``release`` and ``close`` may raise ``StoreUnavailable``. The methods that concern a
    call return within seconds. What an account has spent on a day is the sum of the charges of its
    key, or of its tenant.
    """

    async def open(self) -> None:
        """Open the store; charges made before a crash are counted, and holds are released."""
        ...

    async def keys(self) -> tuple[Key, ...]:
        """Every key."""
        ...

    async def add_key(self, key: Key) -> None:
        """Add a new key. On return it survives ``kill -9``."""
        ...

    async def delete_key(self, key_id: str) -> bool:
        """Delete a key; whether it existed. Its usage stays."""
        ...

    async def admit(self, call: MeteredCall) -> Hold | LimitRefusal:
        """Hold the cost of a call, in both accounts or in neither.

        A recent charge for the same call by a gateway that died is reversed first; one by a gateway
        that was closed is not.
        """
        ...

    async def settle(self, held: Hold, charge: Charge) -> None:
        """End the hold and charge the call.

        On return the charge survives ``kill -9``. The hold ends in any case.

        Raises:
            StoreUnavailable: the call is not charged, or this gateway was taken for dead and its
                hold was released: the answer must not be delivered.
        """
        ...

    def release(self, held: Hold, tokens: int = 0) -> None:
        """End the hold of a call that used ``tokens``; :meth:`add` charges it, if at all.

        Returns before the store knows it; the hold also ends if the store is unavailable.
        """
        ...

    async def add(self, charges: Sequence[Charge], batch: str = "") -> None:
        """Charge calls that were not settled.

        ``batch`` is their name: after an error the same charges may be added again under the same
        name, and each counts once. They get a name of their own without it.
        """
        ...

    async def usage(self, first_day: int, last_day: int) -> tuple[Charge, ...]:
        """The usage of these days, one sum for each :class:`UsageKey`, in their order."""
        ...

    async def close(self) -> None:
        """Close the store; charges stay, holds end."""
        ...


@lru_cache(maxsize=4096)
def account_names(tenant: str, key: str) -> tuple[str, str]:
    """The names of a call's two accounts, in stores and in messages."""
    return f"key {key}", f"tenant {tenant}"


def sum_charges(charges: Sequence[Charge]) -> tuple[Charge, ...]:
    """One charge for each :class:`UsageKey`, sorted, without those whose sums are all 0."""
    sums: dict[UsageKey, tuple[int, int, int]] = {}
    for charge in charges:
        requests, prompt, completion = sums.get(charge.row, (0, 0, 0))
        sums[charge.row] = (
            requests + charge.requests,
            prompt + charge.prompt_tokens,
            completion + charge.completion_tokens,
        )
    ordered = sorted(sums.items(), key=lambda item: _order(item[0]))
    return tuple(Charge(row, *counts) for row, counts in ordered if any(counts))


def _order(row: UsageKey) -> tuple[int, str, str, str, str]:
    return row.day, row.tenant, row.key, row.model, row.job
