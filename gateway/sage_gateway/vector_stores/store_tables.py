"""SQLite tables of vector stores, their files, and the rows that are still to be deleted.

Synchronous; one thread calls it. The end of a file (it is detached, has failed, or is attached
again) and the delete of its rows are recorded in one transaction, so that no crash leaves rows of a
file that no store has. ``file_batches.py`` and ``file_attributes.py`` have queries of their own.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sage_gateway.storage.exclusive_database import ExclusiveDatabase, ListPage
from sage_gateway.vector_stores.schema import (
    DAY_S,
    FileCounts,
    FileStatus,
    VectorStoreFile,
    VectorStoreObject,
)
from sage_gateway.vector_stores.store_records import OwnedFile, OwnedStore, PendingDelete
from sage_gateway.vector_stores.table_definitions import SCHEMA

#: How old the recorded last use of a store may be: not each search is a write.
ACTIVITY_S = 60
EXPIRES_AT = f"active_at + {DAY_S} * json_extract(page, '$.expires_after.days')"
IN_PROGRESS = f"status = '{FileStatus.IN_PROGRESS}'"


class StoreTables:
    """The database at ``path``, of one process at a time. Methods raise ``sqlite3.Error``.

    Raises:
        OSError: another gateway has it open, or the path cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._database = ExclusiveDatabase(path, SCHEMA)
        self._db = self._database.connection

    def close(self) -> None:
        """Close the file and release its lock."""
        self._database.close()

    def transaction(self) -> sqlite3.Connection:
        """Begin a transaction, which the end of the block commits."""
        self._db.execute("BEGIN")
        return self._db

    # Vector stores.

    def add_store(self, owned: OwnedStore, *, stores_max: int) -> bool:
        """Add a store; False if the tenant has ``stores_max`` already."""
        query = "SELECT count(*) FROM stores WHERE tenant = ?"
        if self._db.execute(query, (owned.tenant,)).fetchone()[0] >= stores_max:
            return False
        store = owned.store
        values = (store.id, owned.tenant, owned.model, owned.dim, store.created_at)
        self._db.execute(
            "INSERT INTO stores (id, tenant, model, dim, active_at, page) VALUES (?,?,?,?,?,?)",
            (*values, store.model_dump_json()),
        )
        return True

    def store(self, tenant: str, store_id: str) -> OwnedStore | None:
        """The tenant's store of that id, with its current counts."""
        query = "SELECT model, dim, active_at, page FROM stores WHERE id = ? AND tenant = ?"
        row = self._db.execute(query, (store_id, tenant)).fetchone()
        if row is None:
            return None
        model, dim, *rest = row
        return OwnedStore(tenant, model, dim, self._page(*rest))

    def use_store(self, tenant: str, store_id: str, now_s: float) -> OwnedStore | None:
        """The tenant's store of that id, which is active now."""
        self._db.execute(
            "UPDATE stores SET active_at = ? WHERE id = ? AND tenant = ? AND active_at < ?",
            (int(now_s), store_id, tenant, int(now_s) - ACTIVITY_S),
        )
        return self.store(tenant, store_id)

    def stores(self, tenant: str, page: ListPage) -> list[VectorStoreObject]:
        """A page of the tenant's stores, and one more item if the list continues.

        Raises:
            KeyError: ``page.after`` was deleted, or never existed.
        """
        rows = self._database.page("stores", "active_at, page", "tenant = ?", [tenant], page)
        return [self._page(*row) for row in rows]

    def change_store(
        self, tenant: str, store_id: str, changes: Mapping[str, Any]
    ) -> VectorStoreObject | None:
        """The store after a change of its fields; None if the tenant has no such store."""
        found = self.store(tenant, store_id)
        if found is None:
            return None
        page = found.store.model_copy(update=changes).model_dump_json()
        self._db.execute("UPDATE stores SET page = ? WHERE id = ?", (page, store_id))
        changed = self.store(tenant, store_id)
        return changed.store if changed else None

    def delete_store(self, tenant: str, store_id: str) -> bool:
        """Delete a store with its files, and record the delete of its rows; whether it existed."""
        with self.transaction():
            query = "DELETE FROM stores WHERE id = ? AND tenant = ? RETURNING dim"
            found = self._db.execute(query, (store_id, tenant)).fetchall()
            for (dim,) in found:
                self._db.execute("DELETE FROM attachments WHERE store = ?", (store_id,))
                self._db.execute("DELETE FROM pending_deletes WHERE store = ?", (store_id,))
                self._add_pending_delete(store_id, dim)
        return bool(found)

    def expired_stores(self, now_s: float) -> list[tuple[str, str]]:
        """The tenant and id of each store that has not been used for so long that it expires."""
        query = f"SELECT tenant, id FROM stores WHERE {EXPIRES_AT} <= ?"  # noqa: S608
        return self._db.execute(query, (now_s,)).fetchall()

    # Files.

    def add_file(self, owned: OwnedFile) -> bool:
        """Add a file in progress, in place of an earlier one of its id; False without its store.

        Rows of the earlier one stay until the new one has ended.
        """
        with self.transaction():
            return self.insert_files(owned.tenant, owned.file.vector_store_id, [owned])

    def insert_files(self, tenant: str, store_id: str, files: Sequence[OwnedFile]) -> bool:
        """:meth:`add_file` for files of one store, as a part of a transaction."""
        known = "SELECT 1 FROM stores WHERE id = ? AND tenant = ?"
        if not self._db.execute(known, (store_id, tenant)).fetchone():
            return False
        for owned in files:
            self._insert_file(owned)
        return True

    def _insert_file(self, owned: OwnedFile) -> None:
        file, id_ = owned.file, attachment_id(owned.file.vector_store_id, owned.file.id)
        self._db.execute("DELETE FROM attachments WHERE id = ?", (id_,))
        self._db.execute(
            "DELETE FROM pending_deletes WHERE store = ? AND file = ?",
            (file.vector_store_id, file.id),
        )
        columns = "id, store, file, tenant, key, version, status, usage, expires_at, page"
        values = (id_, file.vector_store_id, file.id, owned.tenant, owned.key, owned.version)
        self._db.execute(
            f"INSERT INTO attachments ({columns}) VALUES (?,?,?,?,?,?,?,?,?,?)",  # noqa: S608
            (*values, file.status, 0, owned.expires_at, file.model_dump_json()),
        )

    def finish_file(self, owned: OwnedFile) -> None:
        """Save the final state, and record the delete of the rows that it does not keep.

        A file that has ended, or was attached again, stays as it is.
        """
        with self.transaction():
            self.end_file(owned)

    def end_file(self, owned: OwnedFile) -> None:
        """:meth:`finish_file` as a part of a transaction."""
        id_ = attachment_id(owned.file.vector_store_id, owned.file.id)
        dim = "(SELECT dim FROM stores WHERE id = store)"
        query = (
            f"SELECT page, {dim} FROM attachments WHERE id = ? AND version = ? AND {IN_PROGRESS}"  # noqa: S608
        )
        found = self._db.execute(query, (id_, owned.version)).fetchone()
        if found is None:
            return
        # They may have been changed while the file was indexed.
        attributes = VectorStoreFile.model_validate_json(found[0]).attributes
        file = owned.file.model_copy(update={"attributes": attributes})
        self._db.execute(
            "UPDATE attachments SET status = ?, usage = ?, page = ? WHERE id = ?",
            (file.status, file.usage_bytes, file.model_dump_json(), id_),
        )
        kept_version = owned.version if file.status is FileStatus.COMPLETED else ""
        self._add_pending_delete(file.vector_store_id, found[1], file.id, kept_version)

    def file(self, store_id: str, file_id: str) -> OwnedFile | None:
        """The file of that id in a store."""
        found = self.owned_files("id = ?", [attachment_id(store_id, file_id)])
        return found[0] if found else None

    def owned_files(self, where: str, values: Sequence[object]) -> list[OwnedFile]:
        """The files for which ``where`` is true, a constant of the caller; the oldest first."""
        columns = "tenant, key, version, expires_at, page"
        query = f"SELECT {columns} FROM attachments WHERE {where} ORDER BY seq"  # noqa: S608
        return [
            OwnedFile(tenant, key, version, expires_at, VectorStoreFile.model_validate_json(page))
            for tenant, key, version, expires_at, page in self._db.execute(query, values)
        ]

    def files(
        self, store_id: str, status: FileStatus | None, page: ListPage, *, batch_id: str = ""
    ) -> list[VectorStoreFile]:
        """A page of the files of a store, or of a batch, and one more item if the list continues.

        Raises:
            KeyError: as :meth:`stores`.
        """
        where, values = "store = ?", [store_id]
        if batch_id:
            where, values = f"{where} AND version = ?", [*values, batch_id]
        if status is not None:
            where, values = f"{where} AND status = ?", [*values, status]
        after = None if page.after is None else attachment_id(store_id, page.after)
        page = replace(page, after=after)
        found = self._database.page("attachments", "page", where, values, page)
        return [VectorStoreFile.model_validate_json(row[0]) for row in found]

    def delete_file(self, store_id: str, file_id: str) -> bool:
        """Delete a file, and record the delete of its rows; whether it existed."""
        with self.transaction():
            query = (
                "DELETE FROM attachments WHERE id = ?"
                " RETURNING (SELECT dim FROM stores WHERE id = store)"
            )
            found = self._db.execute(query, (attachment_id(store_id, file_id),)).fetchall()
            for (dim,) in found:
                self._add_pending_delete(store_id, dim, file_id)
        return bool(found)

    def stores_of_file(self, tenant: str, file_id: str) -> list[str]:
        """The ids of the tenant's stores with a file."""
        query = "SELECT store FROM attachments WHERE tenant = ? AND file = ?"
        return [row[0] for row in self._db.execute(query, (tenant, file_id))]

    def expired_files(self, now_s: float) -> list[tuple[str, str]]:
        """The store and id of each file whose upload has expired."""
        query = "SELECT store, file FROM attachments WHERE expires_at <= ?"
        return self._db.execute(query, (now_s,)).fetchall()

    def open_files(self) -> list[OwnedFile]:
        """The files in progress, the oldest first."""
        return self.owned_files(IN_PROGRESS, [])

    def count_open(self, tenant: str) -> int:
        """How many of the tenant's files are in progress."""
        query = f"SELECT count(*) FROM attachments WHERE tenant = ? AND {IN_PROGRESS}"  # noqa: S608
        found: int = self._db.execute(query, (tenant,)).fetchone()[0]
        return found

    # Rows to delete.

    def next_pending_delete(self, after: int) -> PendingDelete | None:
        """The delete that follows the one numbered ``after``."""
        columns = "seq, store, dim, file, kept_version"
        query = f"SELECT {columns} FROM pending_deletes WHERE seq > ? ORDER BY seq LIMIT 1"  # noqa: S608
        row = self._db.execute(query, (after,)).fetchone()
        return PendingDelete(*row) if row else None

    def end_pending_delete(self, seq: int) -> None:
        """Forget a delete: its rows do not exist any more."""
        self._db.execute("DELETE FROM pending_deletes WHERE seq = ?", (seq,))

    def _add_pending_delete(
        self, store_id: str, dim: int, file_id: str = "", kept_version: str = ""
    ) -> None:
        self._db.execute(
            "INSERT INTO pending_deletes (store, dim, file, kept_version) VALUES (?,?,?,?)",
            (store_id, dim, file_id, kept_version),
        )

    def _page(self, active_at: int, page: str) -> VectorStoreObject:
        store = VectorStoreObject.model_validate_json(page)
        sums = "status, count(*), sum(usage)"
        query = f"SELECT {sums} FROM attachments WHERE store = ? GROUP BY status"  # noqa: S608
        rows = self._db.execute(query, (store.id,)).fetchall()
        counts = {status: count for status, count, _ in rows}
        expiry = store.expires_after
        return store.model_copy(
            update={
                "file_counts": FileCounts(**counts, total=sum(counts.values())),
                "usage_bytes": sum(usage for _, _, usage in rows),
                "status": "in_progress" if FileStatus.IN_PROGRESS in counts else "completed",
                "last_active_at": active_at,
                "expires_at": active_at + DAY_S * expiry.days if expiry else None,
            }
        )


def attachment_id(store_id: str, file_id: str) -> str:
    """The id of a file in a store."""
    return f"{store_id}/{file_id}"
