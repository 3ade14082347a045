"""Tenants' store in memory: the reference of the protocol."""

import time
from collections.abc import Callable, Sequence

from typing_extensions import override

from sage_gateway.tenants.account_balances import AccountBalances
from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.limits import LimitRefusal
from sage_gateway.tenants.store_protocol import Charge, Hold, MeteredCall, TenantStore, sum_charges


class MemoryTenantStore(TenantStore):
    """The store of one process; lost with it, so a charge is never reversed after a crash."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._balances = AccountBalances(clock)
        self._usage: tuple[Charge, ...] = ()

    @override
    async def open(self) -> None:
        pass

    @override
    async def keys(self) -> tuple[Key, ...]:
        return tuple(self._balances.keys.values())

    @override
    async def add_key(self, key: Key) -> None:
        self._balances.keys[key.id] = key

    @override
    async def delete_key(self, key_id: str) -> bool:
        return self._balances.keys.pop(key_id, None) is not None

    @override
    async def admit(self, call: MeteredCall) -> Hold | LimitRefusal:
        return self._balances.admit(call) or Hold(call, "")

    @override
    async def settle(self, held: Hold, charge: Charge) -> None:
        self.release(held, charge.tokens)
        await self.add([charge])

    @override
    def release(self, held: Hold, tokens: int = 0) -> None:
        self._balances.release(held.call, tokens)

    @override
    async def add(self, charges: Sequence[Charge], batch: str = "") -> None:
        self._balances.charge(charges)
        self._usage = sum_charges([*self._usage, *charges])

    @override
    async def usage(self, first_day: int, last_day: int) -> tuple[Charge, ...]:
        return tuple(charge for charge in self._usage if first_day <= charge.row.day <= last_day)

    @override
    async def close(self) -> None:
        pass
