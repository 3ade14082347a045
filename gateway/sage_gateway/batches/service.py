"""Where files are handed in and batches asked for; what one tenant has, no other one sees."""

import asyncio
import logging
import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from prometheus_client import CollectorRegistry, Counter, Gauge

from sage_flink.common import StoreUnavailable
from sage_gateway.batches.batch_store import Owned, Page, Rows
from sage_gateway.batches.file_store import Disk
from sage_gateway.batches.runner import Ask, Run, Works
from sage_gateway.batches.schema import Batch, FileDeleted, FileObject, NewBatch
from sage_gateway.batches.state_machine import WINDOW_S
from sage_gateway.config.pool_spec import BatchesSpec
from sage_gateway.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    QueueFull,
    TooLarge,
)
from sage_gateway.runtime.worker_thread import Thread

log = logging.getLogger("sage.gateway")

FILENAME_CHARS_MAX = 255


class Desk:
    """The files and batches of one gateway; ``open`` on the loop that serves.

    Methods raise ``GatewayError``: 404 for what is not the tenant's; and ``StoreUnavailable``.
    """

    def __init__(
        self,
        spec: BatchesSpec,
        folder: Path,
        *,
        ask: Ask,
        known: Callable[[str], bool],
        registry: CollectorRegistry,
    ) -> None:
        self.spec = spec
        self._folder = folder
        self._ask = ask
        self._known = known
        self._runs: dict[str, Run] = {}
        self._thread: Thread | None = None
        self._works: Works | None = None
        self._lines = Counter(
            "sage_gateway_batch_lines",
            "Lines of batches by how they ended",
            ["outcome"],
            registry=registry,
        )
        open_now = Gauge("sage_gateway_batches_open", "Batches under way", registry=registry)
        open_now.set_function(lambda: len(self._runs))

    async def open(self) -> None:
        """Go on with every batch that is not over; without its database the desk stays closed."""
        self._thread = Thread("files and batches")
        try:
            await self._open(self._thread)
        except StoreUnavailable as error:
            log.error("%s; /v1/files and /v1/batches answer 503 until the next start", error)

    async def close(self) -> None:
        """Leave every batch where it stands."""
        tasks = [run.task for run in self._runs.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._works is not None:
            await self._works.thread(self._works.rows.close)
        if self._thread is not None:
            await self._thread.close()

    async def _open(self, thread: Thread) -> None:
        disk = Disk(self._folder / "files")
        rows = await thread(Rows, self._folder / "batches.sqlite")
        await thread(disk.open, await thread(rows.file_ids))
        found = await thread(rows.open_batches)
        rooms = defaultdict[str, asyncio.Semaphore](
            lambda: asyncio.Semaphore(self.spec.lines_at_once)
        )
        self._works = Works(
            self.spec, thread, rows, disk, self._ask, self._known, rooms, self._lines
        )
        for owned in found:
            self._begin(owned, self._works)

    def _open_now(self) -> Works:
        if self._works is None:
            raise StoreUnavailable("files and batches are closed; the gateway's log says why")
        return self._works

    async def upload(self, tenant: str, filename: str, source: BinaryIO) -> FileObject:
        """A new file with what is left of ``source``.

        Raises:
            GatewayError: 413, the tenant's files are too large.
        """
        works = self._open_now()
        file_id, size = await asyncio.to_thread(works.disk.copied, source)
        name = PurePosixPath(filename.replace("\\", "/")).name[:FILENAME_CHARS_MAX]
        file = FileObject(
            id=file_id, bytes=size, created_at=_now(), filename=name or "upload", purpose="batch"
        )
        most = self.spec.tenant_bytes_max
        if not await works.thread(works.rows.add_file, tenant, file, tenant_bytes_max=most):
            await asyncio.to_thread(works.disk.drop, file_id)
            message = f"all files may have {most:,} bytes together; delete some"
            raise TooLarge(message, code="storage_limit_exceeded", param="file")
        return file

    async def files(self, tenant: str, purpose: str | None, page: Page) -> list[FileObject]:
        """A part of the list, and one more where there is more."""
        works = self._open_now()
        return await works.thread(works.rows.files, tenant, purpose, page)

    async def file(self, tenant: str, file_id: str) -> FileObject:
        """What is told of the file."""
        works = self._open_now()
        found = await works.thread(works.rows.file, tenant, file_id)
        if found is None:
            raise NotFound(f"no file {file_id!r:.80}", code="file_not_found", param="file_id")
        return found

    async def content(self, tenant: str, file_id: str) -> Path:
        """Where the file is."""
        return self._open_now().disk.path((await self.file(tenant, file_id)).id)

    async def drop(self, tenant: str, file_id: str) -> FileDeleted:
        """Delete the file.

        Raises:
            GatewayError: 409, an open batch reads it.
        """
        works = self._open_now()
        file = await self.file(tenant, file_id)
        gone = await works.thread(works.rows.drop_file, tenant, file.id)
        if gone is None:
            message = f"a batch reads {file.id}; cancel it, or wait for its end"
            raise Conflict(message, code="file_in_use", param="file_id")
        await asyncio.to_thread(works.disk.drop, file.id)
        return FileDeleted(id=file.id)

    async def create(self, tenant: str, key: str, wanted: NewBatch) -> Batch:
        """A new batch, which begins at once.

        Raises:
            GatewayError: 400, the file is no input; 429, too many of the tenant's are open.
        """
        works = self._open_now()
        file = await self.file(tenant, wanted.input_file_id)
        if file.purpose != "batch":
            message = f"{file.id} has purpose {file.purpose!r}, not 'batch'"
            raise InvalidRequest(message, code="invalid_purpose", param="input_file_id")
        if await works.thread(works.rows.count_open, tenant) >= self.spec.open_max:
            message = f"{self.spec.open_max} batches are open; wait for one to end"
            raise QueueFull(message, code="rate_limit_exceeded", retry_after_s=60)
        now_s = _now()
        batch = Batch(
            id=f"batch_{secrets.token_hex(12)}",
            endpoint=wanted.endpoint,
            input_file_id=file.id,
            completion_window=wanted.completion_window,
            created_at=now_s,
            expires_at=now_s + WINDOW_S,
            metadata=wanted.metadata,
        )
        owned = Owned(tenant, key, batch)
        await works.thread(works.rows.add_batch, owned)
        self._begin(owned, works)
        return batch

    async def batch(self, tenant: str, batch_id: str) -> Batch:
        """How far the batch is."""
        works = self._open_now()
        found = await works.thread(works.rows.batch, tenant, batch_id)
        if found is None:
            message = f"no batch {batch_id!r:.80}"
            raise NotFound(message, code="batch_not_found", param="batch_id")
        return found

    async def batches(self, tenant: str, page: Page) -> list[Batch]:
        """A part of the list, and one more where there is more."""
        works = self._open_now()
        return await works.thread(works.rows.batches, tenant, page)

    async def cancel(self, tenant: str, batch_id: str) -> Batch:
        """Begin to cancel it; what was answered by then is in its output file.

        Raises:
            GatewayError: 409, it is over, or about to be.
        """
        batch = await self.batch(tenant, batch_id)
        run = self._runs.get(batch.id)
        cancelling = await run.cancel() if run else None
        if cancelling is None:
            status = run.batch.status if run else batch.status
            message = f"{batch.id} is {status}; it cannot be cancelled"
            raise Conflict(message, code="batch_over")
        return cancelling.model_copy(update={"request_counts": batch.request_counts})

    def _begin(self, owned: Owned, works: Works) -> None:
        run = self._runs[owned.batch.id] = Run(owned, works)
        run.task.add_done_callback(lambda _: self._runs.pop(owned.batch.id, None))


def _now() -> int:
    return int(time.time())
