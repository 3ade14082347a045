"""Tenants: the API keys, their store, and the usage that is written to it.

Usage of calls without a budget is written every second; a crash may lose that second of the
statistics, never of a budget.
"""

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Iterator
from functools import lru_cache

from sage_flink.common import StoreUnavailable
from sage_gateway.requests.request import Headers
from sage_gateway.tenants import scopes
from sage_gateway.tenants.keys import Key, Keys, Scope
from sage_gateway.tenants.limits import period
from sage_gateway.tenants.store_protocol import Charge, Hold, TenantStore, UsageKey, sum_charges
from sage_gateway.tenants.usage_charge import Payer

log = logging.getLogger("sage.gateway")

TICK_S = 1.0
PENDING_MAX = 10_000
NAME_CHARS_MAX = 128


class Tenants:
    """Keys, store and usage; ``open`` on the loop that serves.

    Keys that were read stay valid while the store is unavailable.
    """

    def __init__(self, keys: Keys, store: TenantStore) -> None:
        self.keys = keys
        self.store = store
        self._pending: dict[Payer, tuple[int, int, int]] = {}
        #: Charges that the store may or may not have, and their name.
        self._batch: tuple[Charge, ...] = ()
        self._batch_name = ""
        self._flush_lock = asyncio.Lock()
        self._ticking: asyncio.Task[None] | None = None
        self._unavailable = False

    async def open(self) -> None:
        """Open the store, read the keys, and refresh both every ``TICK_S``."""
        with self._log_unavailable():
            await self.store.open()
        with self._log_unavailable():
            await self.refresh()
        self._ticking = asyncio.create_task(self._tick(), name="tenants")

    async def close(self) -> None:
        """Write the pending counts and close the store."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        with self._log_unavailable():
            await self.flush()
        await self.store.close()

    async def refresh(self) -> None:
        """Read the keys of the store; keys made by other gateways are known within ``TICK_S``."""
        self.keys.replace(await self.store.keys())

    async def flush(self) -> None:
        """Write what was counted since the last flush, after what an earlier one failed to write.

        A batch that failed is added again unchanged: the store recognises it by its name.
        """
        async with self._flush_lock:
            await self._write_batch()
            pending, self._pending = self._pending, {}
            day, _ = period(time.time())
            charges = [Charge(UsageKey(day, *payer), *counts) for payer, counts in pending.items()]
            self._batch, self._batch_name = sum_charges(charges), secrets.token_hex(8)
            await self._write_batch()

    async def _write_batch(self) -> None:
        if self._batch:
            await self.store.add(self._batch, self._batch_name)
            self._batch = ()

    def admit(self, path: str, headers: Headers) -> Key:
        """The key of a request to ``path``.

        Raises:
            InvalidKey: there is no key, or it is not known.
            MissingScope: the key may not use ``path``.
        """
        return scopes.check(self.keys.find(headers), path)

    def count(self, payer: Payer, counts: tuple[int, int, int]) -> None:
        """Count requests, prompt and completion tokens of a call without a budget."""
        if payer in self._pending or len(self._pending) < PENDING_MAX:
            a, b, c = self._pending.get(payer, (0, 0, 0))
            self._pending[payer] = (a + counts[0], b + counts[1], c + counts[2])

    def settle(self, hold: Hold, charge: Charge) -> Awaitable[None]:
        """End a hold and charge the call; once awaited, the charge survives ``kill -9``.

        Raises:
            StoreUnavailable: as :meth:`TenantStore.settle`.
        """
        return self.store.settle(hold, charge)

    def release(self, hold: Hold, tokens: int) -> None:
        """End a hold without waiting for the store: the answer does not depend on it."""
        self.store.release(hold, tokens)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            for work in (self.flush, self.refresh):
                with self._log_unavailable():
                    await work()

    @contextlib.contextmanager
    def _log_unavailable(self) -> Iterator[None]:
        """Log the first failure of the store, and no other until it responds again."""
        try:
            yield
        except StoreUnavailable as error:
            if not self._unavailable:
                log.warning("tenants: %s; budgets answer 503, usage waits", error)
            self._unavailable = True
        else:
            self._unavailable = False


def tenant_of(key: Key, headers: Headers) -> str:
    """The key's tenant; an admin's key, such as a job's, may act for another one."""
    shown = headers.get(b"x-sage-tenant")
    if shown and key.may(Scope.ADMIN):
        return account_name(shown.decode("latin-1"))
    return key.tenant


@lru_cache(maxsize=4096)
def account_name(name: str) -> str:
    """A client's name for a tenant or a job, in the characters that accounts may have."""
    return re.sub(r"[^A-Za-z0-9._:/-]", "_", name[:NAME_CHARS_MAX])
