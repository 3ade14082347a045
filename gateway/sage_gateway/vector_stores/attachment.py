"""Indexing of one file of a vector store, from its saved state to its end; the only writer of it.

The file is read and split (``file_chunks.py``), its chunks are embedded by the pool as background
work of the key that attached it, and stored as rows of the store's collection. Every step can be
repeated: the ids of rows depend on the file, its version and the place in it, and those of requests
on the texts too, so that after ``kill -9`` the idempotency store replays the vectors that were paid
for. A file is completed after all its rows are stored; of one that failed no row stays.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from sage_flink.common import ConfigError, PoolError, StoreUnavailable, derived_id
from sage_flink.common.openai import error_message
from sage_flink.db import VectorRow
from sage_flink.flow.calls import embeddings
from sage_gateway.batches import BatchService
from sage_gateway.batches.retries import final_answer
from sage_gateway.batches.schema import FileObject
from sage_gateway.batches.state_machine import WINDOW_S
from sage_gateway.errors import NotFound
from sage_gateway.requests.response import Response
from sage_gateway.vector_stores.catalog import StoreCatalog
from sage_gateway.vector_stores.file_chunks import (
    FileChunk,
    FileFailed,
    Split,
    batches,
    read_chunks,
)
from sage_gateway.vector_stores.row_writer import StoreRowWriter
from sage_gateway.vector_stores.schema import FileStatus
from sage_gateway.vector_stores.store_records import OwnedFile, OwnedStore
from sage_gateway.vector_stores.store_tables import StoreTables

log = logging.getLogger("sage.gateway")

RETRY_S = 5.0
#: Of errors that no part of the gateway foresees; then the file has failed.
ERRORS_MAX = 3
#: Sends a request to the pool for the owner of a file: path, request id, body.
Send = Callable[[OwnedFile, str, str, bytes], Awaitable[Response]]
#: The split of a file for the embedding model of its store.
SplitOf = Callable[[OwnedStore, OwnedFile], Split]


@dataclass(frozen=True, slots=True)
class IndexContext:
    """What all files in progress share.

    ``readers``: processes that read a file, at a time. ``tenant_slots``: files of a tenant that are
    indexed at a time. ``folder``: of temporary files. ``rows_pending``: set when rows are to be
    deleted or changed, such as those that a file does not keep at its end.
    """

    catalog: StoreCatalog
    files: BatchService
    rows: StoreRowWriter
    send: Send
    split_of: SplitOf
    folder: Path
    readers: asyncio.Semaphore
    tenant_slots: Mapping[str, asyncio.Semaphore]
    rows_pending: asyncio.Event


class Attachment:
    """A file in progress, with the task that indexes it."""

    def __init__(self, owned: OwnedFile, context: IndexContext) -> None:
        self.owned = owned
        self._context = context
        self.task = asyncio.create_task(self._run(), name=owned.version)

    async def stop(self) -> None:
        """Stop in the saved state; the rows that are written at this moment are stored before."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def _run(self) -> None:
        """Index to the end. Every step can be repeated, so an error is retried."""
        errors = 0
        file = self.owned.file
        while self.owned.file.status is FileStatus.IN_PROGRESS:
            try:
                if errors == ERRORS_MAX:
                    await self._fail(FileFailed("server_error", "the gateway failed; see its log"))
                else:
                    await self._run_once()
            except (StoreUnavailable, OSError) as error:
                log.warning("%s/%s waits: %s", file.vector_store_id, file.id, error)
                await asyncio.sleep(RETRY_S)
            except Exception:
                errors += 1
                log.exception("%s/%s is not indexed", file.vector_store_id, file.id)
                await asyncio.sleep(RETRY_S)

    async def _run_once(self) -> None:
        slots = self._context.tenant_slots[self.owned.tenant]
        left_s = self.owned.file.created_at + WINDOW_S - time.time()
        try:
            async with asyncio.timeout(max(0.0, left_s)), slots:
                usage_bytes = await self._index()
        except TimeoutError:
            message = f"the file was not indexed within {WINDOW_S // 3600} hours"
            await self._fail(FileFailed("server_error", message))
        except FileFailed as failure:
            await self._fail(failure)
        else:
            await self._finish(status=FileStatus.COMPLETED, usage_bytes=usage_bytes)

    async def _index(self) -> int:
        """Store the rows of all chunks; how many bytes their texts and vectors have.

        Raises:
            FileFailed: the file cannot be indexed.
            StoreUnavailable, OSError: the same call may succeed later.
        """
        context, tenant, file = self._context, self.owned.tenant, self.owned.file
        store = await context.catalog(StoreTables.store, tenant, file.vector_store_id)
        if store is None:
            raise FileFailed("server_error", "the vector store was deleted")
        try:
            upload = await context.files.file(tenant, file.id)
            source = await context.files.content(tenant, file.id)
            async with context.readers:
                split = context.split_of(store, self.owned)
                lines = await read_chunks(source, upload.filename, split, context.folder)
        except (NotFound, FileNotFoundError) as error:
            message = "the uploaded file was deleted, or has expired"
            raise FileFailed("invalid_file", message) from error
        count = usage_bytes = 0
        with closing(lines):
            found = batches(lines)
            while (chunks := await asyncio.to_thread(next, found, None)) is not None:
                usage_bytes += await self._store(store, upload, count, chunks)
                count += len(chunks)
        return usage_bytes

    async def _store(
        self, store: OwnedStore, upload: FileObject, first: int, chunks: list[FileChunk]
    ) -> int:
        """Embed and store chunks, the first of which is number ``first``; their bytes."""
        vectors = await self._embed(store, first, [chunk.embedding_text for chunk in chunks])
        pairs = zip(chunks, vectors, strict=True)
        rows = [
            self._row(upload, ordinal, chunk.text, vector)
            for ordinal, (chunk, vector) in enumerate(pairs, first)
        ]
        try:
            refused = await self._context.rows.upsert(store.store.id, store.dim, rows)
        except ConfigError as error:  # its text has the address of the server
            log.error("%s: %s", store.store.id, error)
            message = "the collection of this vector store cannot be written; see the gateway's log"
            raise FileFailed("server_error", message) from error
        if refused:
            raise FileFailed("invalid_file", f"a chunk cannot be stored: {refused[0].reason}")
        return sum(len(row.vector) + len(row.fields["text"].encode()) for row in rows)

    def _row(self, upload: FileObject, ordinal: int, text: str, vector: bytes) -> VectorRow:
        version, file = self.owned.version, self.owned.file
        id_ = derived_id(f"{file.vector_store_id}/{file.id}", version, ordinal)
        fields = {"doc": file.id, "version": version, "title": upload.filename, "text": text}
        return VectorRow(id_, vector, {**fields, "ordinal": ordinal, "attributes": file.attributes})

    async def _embed(self, store: OwnedStore, first: int, texts: list[str]) -> list[bytes]:
        """The vector of each text.

        Raises:
            FileFailed: the pool has no vector for one of them, after the retries of a batch's line.
        """
        body = embeddings.request(store.model, texts)
        place = f"{self.owned.version}/{first}/".encode()
        request_id = blake2b(place + body, digest_size=16).hexdigest()
        answer = await final_answer(
            lambda: self._context.send(self.owned, embeddings.PATH, request_id, body)
        )
        if answer.status != 200:
            message = error_message(answer.body, answer.status)
            raise FileFailed("server_error", f"the chunks cannot be embedded: {message}")
        try:
            slots = embeddings.read(store.model, answer.body, len(texts))
        except PoolError as error:
            raise FileFailed("server_error", str(error)) from error
        vectors: list[bytes] = []
        for slot in embeddings.of_one_size(slots, Counter(), store.dim):
            if isinstance(slot, PoolError):
                raise FileFailed("server_error", str(slot))
            vectors.append(slot)
        return vectors

    async def _fail(self, failure: FileFailed) -> None:
        await self._finish(status=FileStatus.FAILED, last_error=failure.reason)

    async def _finish(self, **changes: Any) -> None:
        """Save the final state."""
        file = self.owned.file.model_copy(update=changes)
        owned = replace(self.owned, file=file)
        await self._context.catalog(StoreTables.finish_file, owned)
        self.owned = owned
        self._context.rows_pending.set()
