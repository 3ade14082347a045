"""Catalog of the vector stores of one gateway: their tables, on a thread of their own."""

import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sage_flink.common import StoreUnavailable
from sage_gateway.errors import NotFound
from sage_gateway.runtime.worker_thread import WorkerThread
from sage_gateway.vector_stores.store_records import OwnedStore
from sage_gateway.vector_stores.store_tables import StoreTables

P = ParamSpec("P")
T = TypeVar("T")
_STORE_ID = re.compile(r"vs_[0-9a-f]{24}")


def is_store_id(name: str) -> bool:
    """Whether it is the id of a vector store of the API, and not the name of a collection."""
    return _STORE_ID.fullmatch(name) is not None


class StoreCatalog:
    """The tables at ``path``; ``open`` on the loop that serves."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: WorkerThread | None = None
        self._tables: StoreTables | None = None

    async def open(self) -> None:
        """Open the tables.

        Raises:
            StoreUnavailable: another gateway has them open, or the file is broken.
        """
        self._thread = WorkerThread("vector stores")
        self._tables = await self._thread(StoreTables, self._path)

    async def close(self) -> None:
        """Wait for the calls in progress and close the tables."""
        if self._thread is not None:
            if self._tables is not None:
                await self._thread(self._tables.close)
            await self._thread.close()

    def __call__(
        self, work: Callable[Concatenate[StoreTables, P], T], *args: P.args, **named: P.kwargs
    ) -> Awaitable[T]:
        """The result of a method of the tables: ``catalog(StoreTables.store, tenant, id)``.

        Raises:
            StoreUnavailable: the tables are closed, or the disk fails.
        """
        if self._tables is None or self._thread is None:
            raise StoreUnavailable("the vector stores are closed; the gateway's log says why")
        return self._thread(work, self._tables, *args, **named)

    async def require_store(self, tenant: str, store_id: str) -> OwnedStore:
        """The tenant's store.

        Raises:
            NotFound: the tenant has no such store.
        """
        found = await self(StoreTables.store, tenant, store_id)
        if found is None:
            raise no_store(store_id)
        return found

    async def used_store(self, tenant: str, store_id: str) -> OwnedStore:
        """The tenant's store, which is active now; raises as :meth:`require_store`."""
        found = await self(StoreTables.use_store, tenant, store_id, time.time())
        if found is None:
            raise no_store(store_id)
        return found


def no_store(store_id: str) -> NotFound:
    """The error of a store that the tenant does not have."""
    message = f"no vector store {store_id!r:.80}: it has expired, was deleted, or never existed"
    return NotFound(message, code="vector_store_not_found", param="vector_store_id")
