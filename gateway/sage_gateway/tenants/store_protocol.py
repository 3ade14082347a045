"""The port of the tenants' store: keys, accounts, and what was used.

``memory.py`` is the fake that keeps the contract, ``sqlite.py`` one gateway's file, ``redis.py``
what several gateways share; ``tests/conformance/test_tenants.py`` holds all of them to it.

**How budgets stay exact over crashes.** A call holds back the most that it can cost; holds die with
their gateway. What it did cost is charged before the end of its answer is sent, so no answer is had
for nothing, and a call that died unanswered costs nothing. Two moments are left. Between the charge
and the ledger's record: the caller asks again under the same id, and the engine makes a second
answer. So a call may be named (``once``): when it is admitted again after the gateway that charged
it died, that charge is taken back, for no answer came of it. And between the charge and the
caller's last byte: the ledger has the answer, and gives it for nothing to who asks again. Of a call
without an id nobody can know; it is charged.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import msgspec

from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.limits import Cost, Refusal


class Call(msgspec.Struct, frozen=True, gc=False):
    """A call that is about to begin: two accounts, each with its limits, and the cost.

    ``once`` names it where the ledger answers it once; empty where it does not.
    """

    key: str
    key_limits: LimitsSpec
    tenant: str
    tenant_limits: LimitsSpec
    cost: Cost
    once: bytes = b""

    def accounts(self) -> tuple[tuple[str, LimitsSpec], tuple[str, LimitsSpec]]:
        """Their names and limits."""
        key, tenant = account_names(self.tenant, self.key)
        return (key, self.key_limits), (tenant, self.tenant_limits)


class Held(msgspec.Struct, frozen=True, gc=False):
    """A call that may go on; ``by`` is the life of the gateway that holds its cost."""

    call: Call
    by: str


class Row(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What usage is summed by."""

    day: int
    tenant: str
    key: str
    model: str
    job: str


class Charge(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Something used: how many requests, how many tokens."""

    row: Row
    requests: int
    prompt_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """Both kinds."""
        return self.prompt_tokens + self.completion_tokens


class Store(Protocol):
    """All methods but ``close`` may raise ``StoreUnavailable``. All are called on one event loop.

    None that concerns a call takes longer than some seconds.

    What an account has spent on a day is the sum of the charges of its key, or of its tenant.
    """

    async def open(self) -> None:
        """Make ready; what was charged before a crash is known, what was held is free."""
        ...

    async def keys(self) -> tuple[Key, ...]:
        """Every key."""
        ...

    async def keep(self, key: Key) -> None:
        """Keep a new key. On return it outlives ``kill -9``."""
        ...

    async def drop(self, key_id: str) -> bool:
        """Forget a key; whether there was one. What it used stays."""
        ...

    async def admit(self, call: Call) -> Held | Refusal:
        """Hold the cost of a call, in both accounts or in none.

        What a gateway that has died charged for the same call lately is taken back first.
        """
        ...

    async def settle(self, held: Held, charge: Charge | None) -> None:
        """End a call and charge it; None charges nothing. On return it outlives ``kill -9``.

        The hold ends whatever happens.

        Raises:
            StoreUnavailable: it is not charged, or this gateway was taken for dead and its hold
                given to others: the answer must not be had.
        """
        ...

    async def add(self, charges: Sequence[Charge]) -> None:
        """Charge calls that nothing was held for."""
        ...

    async def usage(self, first_day: int, last_day: int) -> tuple[Charge, ...]:
        """The sums of these days, one a row, in the rows' order."""
        ...

    async def close(self) -> None:
        """Let go of everything; charges stay, holds do not."""
        ...


@lru_cache(maxsize=4096)
def account_names(tenant: str, key: str) -> tuple[str, str]:
    """How the two accounts of a call are called, in stores and in messages."""
    return f"key {key}", f"tenant {tenant}"


def summed(charges: Sequence[Charge]) -> tuple[Charge, ...]:
    """One charge a row, sorted; rows that come to nothing are left out."""
    sums: dict[Row, tuple[int, int, int]] = {}
    for one in charges:
        a, b, c = sums.get(one.row, (0, 0, 0))
        sums[one.row] = (a + one.requests, b + one.prompt_tokens, c + one.completion_tokens)
    ordered = sorted(sums.items(), key=lambda item: _order(item[0]))
    return tuple(Charge(row, *counts) for row, counts in ordered if any(counts))


def _order(row: Row) -> tuple[int, str, str, str, str]:
    return row.day, row.tenant, row.key, row.model, row.job
