"""Service behind ``/v1/files`` and ``/v1/batches``. Every method is scoped to one tenant.

A file with an expiry is no longer found from that second on, and deleted a little later. A batch
that was created before keeps its input until it ends. OpenAI deletes input files after 30 days;
here a file without an expiry stays, because nothing announces that it would be deleted.
"""

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
from sage_gateway.batches.batch_store import BatchStore, OwnedBatch
from sage_gateway.batches.file_store import FileStore
from sage_gateway.batches.runner import BatchContext, BatchRun, Send
from sage_gateway.batches.schema import (
    Batch,
    ExpiresAfter,
    FileDeleted,
    FileObject,
    NewBatch,
    Purpose,
)
from sage_gateway.batches.state_machine import WINDOW_S
from sage_gateway.config.storage_spec import BatchesSpec
from sage_gateway.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    TooLarge,
)
from sage_gateway.runtime.worker_thread import WorkerThread
from sage_gateway.storage.exclusive_database import ListPage, page_after

log = logging.getLogger("sage.gateway")

FILENAME_CHARS_MAX = 255
#: Between two looks for expired files, at most: the clock may be set.
EXPIRY_CHECK_S = 60.0


class BatchService:
    """The files and batches of one gateway; ``open`` on the loop that serves.

    Methods raise ``NotFound`` for an id that is not the tenant's, and
    ``StoreUnavailable``.
    """

    def __init__(
        self,
        spec: BatchesSpec,
        folder: Path,
        *,
        send: Send,
        is_known_model: Callable[[str], bool],
        registry: CollectorRegistry,
    ) -> None:
        self.spec = spec
        self._folder = folder
        self._send = send
        self._is_known_model = is_known_model
        self._runs: dict[str, BatchRun] = {}
        self._thread: WorkerThread | None = None
        self._context: BatchContext | None = None
        self._expiry: asyncio.Task[None] | None = None
        self._line_counter = Counter(
            "sage_gateway_batch_lines",
            "Lines of batches by outcome: completed, failed",
            ["outcome"],
            registry=registry,
        )
        gauge = Gauge("sage_gateway_batches_open", "Batches that have not ended", registry=registry)
        gauge.set_function(lambda: len(self._runs))

    async def open(self) -> None:
        """Resume every batch that has not ended; without its database the service stays closed."""
        self._thread = WorkerThread("files and batches")
        try:
            await self._open(self._thread)
        except StoreUnavailable as error:
            log.error("%s; /v1/files and /v1/batches answer 503 until the next start", error)

    async def close(self) -> None:
        """Stop every batch in its saved state."""
        tasks = [run.task for run in self._runs.values()]
        tasks += [self._expiry] if self._expiry else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._context is not None:
            await self._context.thread(self._context.store.close)
        if self._thread is not None:
            await self._thread.close()

    async def _open(self, thread: WorkerThread) -> None:
        files = FileStore(self._folder / "files")
        store = await thread(BatchStore, self._folder / "batches.sqlite")
        await thread(files.open, await thread(store.file_ids))
        open_batches = await thread(store.open_batches)
        self._context = BatchContext(
            self.spec,
            thread,
            store,
            files,
            self._send,
            self._is_known_model,
            defaultdict(lambda: asyncio.Semaphore(self.spec.lines_at_once)),
            self._line_counter,
        )
        for owned in open_batches:
            self._start(owned, self._context)
        self._expiry = asyncio.create_task(self._delete_expired(self._context))

    def _require_open(self) -> BatchContext:
        if self._context is None:
            raise StoreUnavailable("files and batches are closed; the gateway's log says why")
        return self._context

    async def _delete_expired(self, context: BatchContext) -> None:
        """Delete files as they expire; of one that a batch reads, after the batch."""
        while True:
            pause_s = EXPIRY_CHECK_S
            try:
                for file_id in await context.thread(context.store.delete_expired, time.time()):
                    await asyncio.to_thread(context.files.delete, file_id)
                next_s = await context.thread(context.store.next_expiry_s)
                if next_s is not None:
                    pause_s = min(pause_s, max(0.0, next_s - time.time()))
            except (StoreUnavailable, OSError) as error:
                log.warning("expired files are not deleted now: %s", error)
            await asyncio.sleep(pause_s)

    async def upload(
        self,
        tenant: str,
        filename: str,
        source: BinaryIO,
        expiry: ExpiresAfter | None = None,
        *,
        purpose: Purpose = "batch",
    ) -> FileObject:
        """A new file with the rest of ``source``.

        Raises:
            TooLarge: the tenant's files are.
        """
        context = self._require_open()
        file_id, size = await asyncio.to_thread(context.files.copy, source)
        name = PurePosixPath(filename.replace("\\", "/")).name[:FILENAME_CHARS_MAX]
        now_s = _now()
        file = FileObject(
            id=file_id,
            bytes=size,
            created_at=now_s,
            expires_at=now_s + expiry.seconds if expiry else None,
            filename=name or "upload",
            purpose=purpose,
        )
        bytes_max = self.spec.tenant_bytes_max
        if not await context.thread(
            context.store.add_file, tenant, file, tenant_bytes_max=bytes_max
        ):
            await asyncio.to_thread(context.files.delete, file_id)
            message = f"all files may have {bytes_max:,} bytes together; delete some"
            raise TooLarge(message, code="storage_limit_exceeded", param="file")
        return file

    async def files(self, tenant: str, purpose: str | None, page: ListPage) -> list[FileObject]:
        """A page of the tenant's files, and one more item if the list continues.

        Raises:
            NotFound: the page begins after a file that was deleted or has expired.
        """
        context = self._require_open()
        found = context.thread(context.store.files, tenant, purpose, page, time.time())
        return await page_after(page, found)

    async def file(self, tenant: str, file_id: str) -> FileObject:
        """The file's metadata."""
        context = self._require_open()
        found = await context.thread(context.store.file, tenant, file_id, time.time())
        if found is None:
            raise _no_file(file_id, "file_id")
        return found

    async def content(self, tenant: str, file_id: str) -> Path:
        """Where the file is."""
        return self._require_open().files.path((await self.file(tenant, file_id)).id)

    async def delete(self, tenant: str, file_id: str) -> FileDeleted:
        """Delete the file.

        Raises:
            Conflict: an open batch reads it.
        """
        context = self._require_open()
        file = await self.file(tenant, file_id)
        deleted = await context.thread(context.store.delete_file, tenant, file.id)
        if deleted is None:
            message = f"a batch reads {file.id}; cancel it, or wait for its end"
            raise Conflict(message, code="file_in_use", param="file_id")
        await asyncio.to_thread(context.files.delete, file.id)
        return FileDeleted(id=file.id)

    async def create(self, tenant: str, key: str, request: NewBatch) -> Batch:
        """A new batch, started immediately.

        Raises:
            InvalidRequest: the file is not an input file.
            QuotaExceeded: the tenant has too many open batches.
        """
        context = self._require_open()
        file = await context.thread(context.store.file, tenant, request.input_file_id, time.time())
        if file is None:
            raise _no_file(request.input_file_id, "input_file_id")
        if file.purpose != "batch":
            message = f"{file.id} has purpose {file.purpose!r}, not 'batch'"
            raise InvalidRequest(message, code="invalid_purpose", param="input_file_id")
        if await context.thread(context.store.count_open, tenant) >= self.spec.open_max:
            message = f"{self.spec.open_max} batches are open; wait for one to end"
            raise QuotaExceeded(message, retry_after_s=60)
        now_s = _now()
        batch = Batch(
            id=f"batch_{secrets.token_hex(12)}",
            endpoint=request.endpoint,
            input_file_id=file.id,
            completion_window=request.completion_window,
            created_at=now_s,
            expires_at=now_s + WINDOW_S,
            metadata=request.metadata,
            output_expires_after=request.output_expires_after,
        )
        owned = OwnedBatch(tenant, key, batch)
        if not await context.thread(context.store.add_batch, owned, time.time()):
            raise _no_file(file.id, "input_file_id")  # since the check
        self._start(owned, context)
        return batch

    async def batch(self, tenant: str, batch_id: str) -> Batch:
        """The batch with its progress."""
        context = self._require_open()
        found = await context.thread(context.store.batch, tenant, batch_id)
        if found is None:
            message = f"no batch {batch_id!r:.80}"
            raise NotFound(message, code="batch_not_found", param="batch_id")
        return found

    async def batches(self, tenant: str, page: ListPage) -> list[Batch]:
        """A page of the tenant's batches, and one more item if the list continues.

        Raises:
            NotFound: the page begins after a batch that does not exist.
        """
        context = self._require_open()
        return await page_after(page, context.thread(context.store.batches, tenant, page))

    async def cancel(self, tenant: str, batch_id: str) -> Batch:
        """Start to cancel it; its output file will have the answers of the finished lines.

        Raises:
            Conflict: it has ended or is about to.
        """
        batch = await self.batch(tenant, batch_id)
        run = self._runs.get(batch.id)
        cancelling = await run.cancel() if run else None
        if cancelling is None:
            status = run.batch.status if run else batch.status
            message = f"{batch.id} is {status}; it cannot be cancelled"
            raise Conflict(message, code="batch_over")
        return cancelling.model_copy(update={"request_counts": batch.request_counts})

    def _start(self, owned: OwnedBatch, context: BatchContext) -> None:
        run = self._runs[owned.batch.id] = BatchRun(owned, context)
        run.task.add_done_callback(lambda _: self._runs.pop(owned.batch.id, None))


def _no_file(file_id: str, param: str) -> NotFound:
    message = f"no file {file_id!r:.80}: it has expired, was deleted, or never existed"
    return NotFound(message, code="file_not_found", param=param)


def _now() -> int:
    return int(time.time())
