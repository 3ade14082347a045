"""Tenants in this process: the reference of the port."""

import time
from collections.abc import Callable, Sequence

from sage_gateway.tenants.account_balances import Books
from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.limits import Refusal
from sage_gateway.tenants.store_protocol import Call, Charge, Held, summed


class MemoryStore:
    """One process, gone with it; so there is no charge of an earlier life to take back."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._books = Books(clock)
        self._used: tuple[Charge, ...] = ()

    async def open(self) -> None:
        """Nothing to do."""

    async def keys(self) -> tuple[Key, ...]:
        """As the port has it."""
        return tuple(self._books.keys.values())

    async def keep(self, key: Key) -> None:
        """As the port has it; lost with the process."""
        self._books.keys[key.id] = key

    async def drop(self, key_id: str) -> bool:
        """As the port has it."""
        return self._books.keys.pop(key_id, None) is not None

    async def admit(self, call: Call) -> Held | Refusal:
        """As the port has it."""
        return self._books.admit(call) or Held(call, "")

    async def settle(self, held: Held, charge: Charge | None) -> None:
        """As the port has it."""
        self._books.end(held.call, charge.tokens if charge else 0)
        if charge:
            await self.add([charge])

    async def add(self, charges: Sequence[Charge]) -> None:
        """As the port has it."""
        self._books.charge(charges)
        self._used = summed([*self._used, *charges])

    async def usage(self, first_day: int, last_day: int) -> tuple[Charge, ...]:
        """As the port has it."""
        return tuple(one for one in self._used if first_day <= one.row.day <= last_day)

    async def close(self) -> None:
        """Nothing to do."""
