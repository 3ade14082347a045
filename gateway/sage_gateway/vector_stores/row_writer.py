"""Writer of the rows of vector stores: a collection of ``sage.db`` for each store.

A collection has the id of its store as its name, is made by the first rows, and is dropped with the
store. All calls go through one thread, in the order in which they were made.
"""

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Protocol, TypeVar

from sage_flink.common import NotFound as CollectionNotFound
from sage_flink.common import StoreUnavailable
from sage_flink.db import RefusedRow, RowDelete, RowFilter, VectorRow, field
from sage_gateway.runtime.worker_thread import WorkerThread
from sage_gateway.vector_stores.open_stores import OpenStores
from sage_gateway.vector_stores.store_records import (
    OwnedFile,
    OwnedStore,
    PendingAttributes,
    PendingDelete,
)

log = logging.getLogger("sage.gateway")

OPEN_MAX = 32
#: Of one write of changed rows.
BATCH_ROWS = 500
T = TypeVar("T")


class CollectionRows(Protocol):
    """An opened collection; see :class:`sage_flink.db.VectorStore`."""

    def upsert(self, rows: Sequence[VectorRow]) -> Sequence[RefusedRow]:
        """Store the rows; those refused come back."""
        ...

    def delete(self, deletes: Sequence[RowDelete]) -> None:
        """Delete the rows of each document except those of the version kept."""
        ...

    def scan(self, where: RowFilter | None = None, *, vectors: bool = True) -> Iterator[VectorRow]:
        """The rows that match, page by page."""
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Collections(Protocol):
    """The collections of a vector store; calls block."""

    def open(self, name: str, dim: int, *, create: bool) -> CollectionRows:
        """The collection, made where it is absent with ``create``.

        Raises:
            NotFound: there is no such collection, and ``create`` is false.
        """
        ...

    def drop(self, name: str) -> None:
        """Delete a collection with its rows.

        Raises:
            NotFound: there is no such collection.
        """
        ...


class ConfiguredCollections:
    """Those of the configured Milvus."""

    def open(self, name: str, dim: int, *, create: bool) -> CollectionRows:
        """The collection."""
        from sage_flink import db

        return db.collection(name, dim=dim).open(create=create)

    def drop(self, name: str) -> None:
        """Delete a collection."""
        from sage_connectors.milvus_server import MilvusServer
        from sage_flink import db

        with MilvusServer(db.collection(name, dim=2).server) as milvus:
            milvus.drop(name)


CONFIGURED: Collections = ConfiguredCollections()


class StoreRowWriter:
    """Writes, changes, reads and deletes rows; a call is queued when it is made, awaited or not."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections
        self._open: OpenStores[CollectionRows] = OpenStores(OPEN_MAX)
        self._thread = WorkerThread("rows of vector stores")

    def upsert(
        self, store_id: str, dim: int, rows: Sequence[VectorRow]
    ) -> Awaitable[Sequence[RefusedRow]]:
        """Store the rows; those refused come back.

        Raises:
            StoreUnavailable: no row is known to be stored; the same call may succeed later.
            ConfigError: the collection there has another dim or schema.
        """
        return self._thread(self._upsert, store_id, dim, rows)

    def delete(self, pending: PendingDelete) -> Awaitable[None]:
        """Delete the rows, if there are any.

        Raises:
            StoreUnavailable: some rows may be deleted; the same call may succeed later.
        """
        return self._thread(self._delete, pending)

    def set_attributes(self, pending: PendingAttributes) -> Awaitable[None]:
        """Write the attributes to the rows of a file, if there are any.

        Raises:
            StoreUnavailable: some rows may have them; the same call may succeed later.
        """
        return self._thread(self._set_attributes, pending)

    def texts(self, store: OwnedStore, owned: OwnedFile) -> Awaitable[list[str]]:
        """The texts of a file's rows, in their order.

        Raises:
            StoreUnavailable: the same call may succeed later.
        """
        return self._thread(self._texts, store.store.id, store.dim, owned)

    async def close(self) -> None:
        """Wait for the writes in progress and close all collections."""
        await self._thread(self._open.close)
        await self._thread.close()

    def _upsert(self, store_id: str, dim: int, rows: Sequence[VectorRow]) -> Sequence[RefusedRow]:
        try:
            return self._rows(store_id, dim, create=True).upsert(rows)
        except CollectionNotFound as error:  # dropped since it was opened; the next try makes it
            self._open.discard(store_id)
            raise StoreUnavailable(str(error)) from error
        except StoreUnavailable:
            self._open.discard(store_id)
            raise

    def _delete(self, pending: PendingDelete) -> None:
        def delete(rows: CollectionRows) -> None:
            rows.delete([RowDelete(pending.file, pending.kept_version)])

        if pending.file:
            self._with_rows(pending.store, pending.dim, delete, None)
            return
        self._open.discard(pending.store)
        with contextlib.suppress(CollectionNotFound):
            self._collections.drop(pending.store)

    def _set_attributes(self, pending: PendingAttributes) -> None:
        def rewrite(rows: CollectionRows) -> None:
            new = {"attributes": pending.attributes}
            found = rows.scan(_rows_of(pending.file, pending.version))
            changed = (replace(row, fields={**row.fields, **new}) for row in found)
            while batch := list(islice(changed, BATCH_ROWS)):
                for refused in rows.upsert(batch):
                    log.error("%s: old attributes stay: %s", pending.store, refused)

        self._with_rows(pending.store, pending.dim, rewrite, None)

    def _texts(self, store_id: str, dim: int, owned: OwnedFile) -> list[str]:
        def read(rows: CollectionRows) -> list[str]:
            found = rows.scan(_rows_of(owned.file.id, owned.version), vectors=False)
            ordered = sorted(found, key=lambda row: int(row.fields["ordinal"]))
            return [str(row.fields["text"]) for row in ordered]

        return self._with_rows(store_id, dim, read, [])

    def _with_rows(
        self, store_id: str, dim: int, work: Callable[[CollectionRows], T], without: T
    ) -> T:
        """The result of ``work`` with the collection; ``without`` one."""
        try:
            return work(self._rows(store_id, dim, create=False))
        except CollectionNotFound:
            self._open.discard(store_id)
            return without
        except StoreUnavailable:
            self._open.discard(store_id)
            raise

    def _rows(self, store_id: str, dim: int, *, create: bool) -> CollectionRows:
        if store_id not in self._open:
            self._open[store_id] = self._collections.open(store_id, dim, create=create)
        return self._open[store_id]


def _rows_of(file_id: str, version: str) -> RowFilter:
    return (field("doc") == file_id) & (field("version") == version)
