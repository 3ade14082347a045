"""Indexer of vector stores: the files in progress, and the rows to delete and to change.

A change of which files a store has is saved first. Then the run of the file is stopped, and its
rows are deleted: a moment later, and again until the store of the rows has confirmed it. Attributes
of a file are written to its rows in the same way.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from sage_flink.common import ConfigError, StoreUnavailable
from sage_gateway.batches import BatchService
from sage_gateway.vector_stores.attachment import Attachment, IndexContext, Send, SplitOf
from sage_gateway.vector_stores.catalog import StoreCatalog
from sage_gateway.vector_stores.file_attributes import (
    change_attributes,
    end_pending_attributes,
    next_pending_attributes,
)
from sage_gateway.vector_stores.file_batch_tables import add_batch, cancel_batch
from sage_gateway.vector_stores.row_writer import Collections, StoreRowWriter
from sage_gateway.vector_stores.schema import Attributes, VectorStoreFile
from sage_gateway.vector_stores.store_records import (
    OwnedFile,
    OwnedStore,
    PendingAttributes,
    PendingDelete,
)
from sage_gateway.vector_stores.store_tables import StoreTables

log = logging.getLogger("sage.gateway")

#: Files of a tenant that are indexed at a time, and processes that read a file.
TENANT_SLOTS, READERS = 2, 2
#: Between two looks for what has expired.
EXPIRY_CHECK_S = 60.0
#: Before rows are changed again after an error.
RETRY_S = 5.0
P = TypeVar("P", PendingDelete, PendingAttributes)


class Indexer:
    """The only one that starts and stops files in progress; ``open`` on the loop that serves.

    ``folder``: of temporary files. Methods raise ``StoreUnavailable``.
    """

    def __init__(
        self,
        catalog: StoreCatalog,
        files: BatchService,
        *,
        collections: Collections,
        send: Send,
        split_of: SplitOf,
        folder: Path,
    ) -> None:
        self._catalog = catalog
        self._runs: dict[tuple[str, str], Attachment] = {}
        self._maintenance: asyncio.Task[None] | None = None
        #: One change at a time: rows are deleted before a later attachment writes those of its own.
        self._changes = asyncio.Lock()
        self._context = IndexContext(
            catalog,
            files,
            StoreRowWriter(collections),
            send,
            split_of,
            folder,
            asyncio.Semaphore(READERS),
            defaultdict(lambda: asyncio.Semaphore(TENANT_SLOTS)),
            asyncio.Event(),
        )

    async def open(self) -> None:
        """Resume every file in progress."""
        for owned in await self._catalog(StoreTables.open_files):
            self._start(owned)
        self._maintenance = asyncio.create_task(self._maintain(), name="vector stores")

    async def close(self) -> None:
        """Stop every file in its saved state."""
        if self._maintenance is not None:
            self._maintenance.cancel()
            await asyncio.gather(self._maintenance, return_exceptions=True)
        await self._stop(list(self._runs))
        await self._context.rows.close()

    async def add(self, owned: OwnedFile) -> bool:
        """Start to index a file, in place of an earlier one of its id; False without its store."""
        async with self._changes:
            if not await self._catalog(StoreTables.add_file, owned):
                return False
            await self._restart([owned])
        return True

    async def add_batch(self, batch_id: str, files: Sequence[OwnedFile]) -> bool:
        """Start to index the files of a batch, as :meth:`add`."""
        async with self._changes:
            if not await self._catalog(add_batch, batch_id, files):
                return False
            await self._restart(files)
        return True

    async def cancel_batch(self, store_id: str, batch_id: str) -> bool:
        """Stop the files of a batch that are in progress; whether there were some."""
        async with self._changes:
            cancelled = await self._catalog(cancel_batch, store_id, batch_id)
            await self._stop([_key(owned) for owned in cancelled])
        self._context.rows_pending.set()
        return bool(cancelled)

    async def change_attributes(
        self, store_id: str, file_id: str, attributes: Attributes
    ) -> VectorStoreFile | None:
        """The file with these attributes, which its rows have a moment later; None without it."""
        changed = await self._catalog(change_attributes, store_id, file_id, attributes)
        self._context.rows_pending.set()
        return changed

    async def texts(self, store: OwnedStore, owned: OwnedFile) -> list[str]:
        """The chunks of a file in their order; of one in progress those that are stored."""
        return await self._context.rows.texts(store, owned)

    async def remove(self, store_id: str, file_id: str) -> bool:
        """Remove a file from a store; whether it was there."""
        async with self._changes:
            existed = await self._catalog(StoreTables.delete_file, store_id, file_id)
            await self._stop([(store_id, file_id)])
        self._context.rows_pending.set()
        return existed

    async def remove_store(self, tenant: str, store_id: str) -> bool:
        """Delete a store with its files; whether the tenant had it."""
        async with self._changes:
            existed = await self._catalog(StoreTables.delete_store, tenant, store_id)
            if existed:
                await self._stop([key for key in self._runs if key[0] == store_id])
        self._context.rows_pending.set()
        return existed

    async def _restart(self, files: Sequence[OwnedFile]) -> None:
        await self._stop([_key(owned) for owned in files])
        for owned in files:
            self._start(owned)

    def _start(self, owned: OwnedFile) -> None:
        key = _key(owned)
        run = self._runs[key] = Attachment(owned, self._context)
        run.task.add_done_callback(lambda _: self._forget(key, run))

    def _forget(self, key: tuple[str, str], run: Attachment) -> None:
        if self._runs.get(key) is run:
            del self._runs[key]

    async def _stop(self, keys: Sequence[tuple[str, str]]) -> None:
        runs = [self._runs[key] for key in keys if key in self._runs]
        await asyncio.gather(*(run.stop() for run in runs))

    async def _maintain(self) -> None:
        """Delete what has expired, and rows that no store has any more; change attributes."""
        while True:
            self._context.rows_pending.clear()
            try:
                await self._remove_expired()
                rows = self._context.rows
                await self._apply(
                    StoreTables.next_pending_delete, rows.delete, StoreTables.end_pending_delete
                )
                await self._apply(
                    next_pending_attributes, rows.set_attributes, end_pending_attributes
                )
            except (StoreUnavailable, OSError) as error:
                log.warning("rows of vector stores are not changed now: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EXPIRY_CHECK_S):
                    await self._context.rows_pending.wait()

    async def _remove_expired(self) -> None:
        now_s = time.time()
        for tenant, store_id in await self._catalog(StoreTables.expired_stores, now_s):
            await self.remove_store(tenant, store_id)
        for store_id, file_id in await self._catalog(StoreTables.expired_files, now_s):
            await self.remove(store_id, file_id)

    async def _apply(
        self,
        next_pending: Callable[[StoreTables, int], P | None],
        apply: Callable[[P], Awaitable[None]],
        end: Callable[[StoreTables, int], None],
    ) -> None:
        """Make all pending changes of one kind; what is refused is tried at the next look."""
        seq = 0
        while True:
            async with self._changes:
                pending = await self._catalog(next_pending, seq)
                if pending is None:
                    return
                applying = apply(pending)
            seq = pending.seq
            try:
                await applying
            except ConfigError as error:
                log.error("%s: rows cannot be changed: %s", pending.store, error)
            else:
                await self._catalog(end, seq)


def _key(owned: OwnedFile) -> tuple[str, str]:
    return owned.file.vector_store_id, owned.file.id
