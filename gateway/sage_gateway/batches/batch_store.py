"""SQLite store of files, batches and the answers of lines. Synchronous; one thread calls it.

WAL with ``synchronous=NORMAL``: committed rows survive ``kill -9``; a power cut may lose the last
seconds, and those lines are sent again. An answer and its counter are one transaction, and so are
the end of a batch and its output files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from sage_gateway.batches.schema import Batch, FileObject, RequestCounts
from sage_gateway.batches.state_machine import is_final
from sage_gateway.storage.exclusive_database import ExclusiveDatabase, ListPage

SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, tenant TEXT NOT NULL,
    purpose TEXT NOT NULL, bytes INTEGER NOT NULL, page TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    seq INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL,
    input TEXT NOT NULL, open INTEGER NOT NULL, completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0, page TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS answers (
    batch TEXT NOT NULL, line INTEGER NOT NULL, good INTEGER NOT NULL, told BLOB NOT NULL,
    UNIQUE (batch, line));
CREATE INDEX IF NOT EXISTS files_expiry ON files (json_extract(page, '$.expires_at'));
"""
#: The condition on a file that has not expired; its value is the time.
ALIVE = "coalesce(json_extract(page, '$.expires_at') > ?, TRUE)"
#: The condition on a file that no open batch reads.
UNUSED = "id NOT IN (SELECT input FROM batches WHERE open)"


@dataclass(frozen=True, slots=True)
class OwnedBatch:
    """A batch with its tenant and the id of the API key that its lines are sent with."""

    tenant: str
    key: str
    batch: Batch


class BatchStore:
    """The database at ``path``, of one process at a time. Methods raise ``sqlite3.Error``.

    Raises:
        OSError: another gateway has it open, or the path cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._file = ExclusiveDatabase(path, SCHEMA)  # two would run each batch twice
        self._db = self._file.connection

    def close(self) -> None:
        """Close the file and release its lock."""
        self._file.close()

    # Files.

    def add_file(self, tenant: str, file: FileObject, *, tenant_bytes_max: int) -> bool:
        """Add a file; False if the tenant's files would then exceed ``tenant_bytes_max``."""
        query = "SELECT coalesce(sum(bytes), 0) FROM files WHERE tenant = ?"
        total: int = self._db.execute(query, (tenant,)).fetchone()[0]
        if total + file.bytes > tenant_bytes_max:
            return False
        self._insert_file(tenant, file)
        return True

    def file(self, tenant: str, file_id: str, now_s: float) -> FileObject | None:
        """The tenant's file of that id; None also if it has expired."""
        query = f"SELECT page FROM files WHERE id = ? AND tenant = ? AND {ALIVE}"  # noqa: S608
        row = self._db.execute(query, (file_id, tenant, now_s)).fetchone()
        return FileObject.model_validate_json(row[0]) if row else None

    def files(
        self, tenant: str, purpose: str | None, page: ListPage, now_s: float
    ) -> list[FileObject]:
        """A page of the tenant's files, and one more item if the list continues.

        Raises:
            KeyError: ``page.after`` was deleted, or never existed.
        """
        where, values = f"tenant = ? AND {ALIVE}", [tenant, now_s]
        if purpose:
            where, values = f"{where} AND purpose = ?", [*values, purpose]
        found = self._file.page("files", "page", where, values, page)
        return [FileObject.model_validate_json(row[0]) for row in found]

    def delete_file(self, tenant: str, file_id: str) -> bool | None:
        """Delete a file; whether it existed. None, and no change, if an open batch reads it."""
        query = "SELECT 1 FROM batches WHERE tenant = ? AND input = ? AND open"
        if self._db.execute(query, (tenant, file_id)).fetchone():
            return None
        found = self._db.execute("DELETE FROM files WHERE id = ? AND tenant = ?", (file_id, tenant))
        return found.rowcount > 0

    def delete_expired(self, now_s: float) -> list[str]:
        """Delete the files that have expired; their ids. One that an open batch reads is kept."""
        expired = f"json_extract(page, '$.expires_at') <= ? AND {UNUSED}"
        rows = self._db.execute(f"DELETE FROM files WHERE {expired} RETURNING id", (now_s,))  # noqa: S608
        return [row[0] for row in rows]

    def next_expiry_s(self) -> float | None:
        """When the next file is to be deleted; None if there is none that expires."""
        query = f"SELECT min(json_extract(page, '$.expires_at')) FROM files WHERE {UNUSED}"  # noqa: S608
        found: float | None = self._db.execute(query).fetchone()[0]
        return found

    def file_ids(self) -> set[str]:
        """The ids of all files."""
        return {row[0] for row in self._db.execute("SELECT id FROM files")}

    # Batches.

    def add_batch(self, owned: OwnedBatch, now_s: float) -> bool:
        """Add a new batch, which keeps its input file until it ends; False without that file."""
        batch, tenant = owned.batch, owned.tenant
        values = (batch.id, tenant, owned.key, batch.input_file_id, 1, _json(batch))
        file = f"SELECT 1 FROM files WHERE id = ? AND tenant = ? AND {ALIVE}"  # noqa: S608
        columns = "id, tenant, key, input, open, page"
        insert = f"INSERT INTO batches ({columns}) SELECT ?,?,?,?,?,? WHERE EXISTS ({file})"
        added = self._db.execute(insert, (*values, batch.input_file_id, tenant, now_s))
        return added.rowcount > 0

    def save(self, batch: Batch) -> None:
        """Update a batch. Of its counts only the total is saved; the answers give the others."""
        self._db.execute(
            "UPDATE batches SET page = ?, open = ? WHERE id = ?",
            (_json(batch), not is_final(batch.status), batch.id),
        )

    def finish(self, tenant: str, batch: Batch, files: Sequence[FileObject]) -> None:
        """Save the final state with the output files, and delete the answers of the lines."""
        with self._db:
            self._db.execute("BEGIN")
            for file in files:
                self._insert_file(tenant, file)
            self.save(batch)
            self._db.execute("DELETE FROM answers WHERE batch = ?", (batch.id,))

    def batch(self, tenant: str, batch_id: str) -> Batch | None:
        """The tenant's batch of that id, with its current counts."""
        query = "SELECT page, completed, failed FROM batches WHERE id = ? AND tenant = ?"
        row = self._db.execute(query, (batch_id, tenant)).fetchone()
        return _batch_of(*row) if row else None

    def batches(self, tenant: str, page: ListPage) -> list[Batch]:
        """A page of the tenant's batches, and one more item if the list continues.

        Raises:
            KeyError: as :meth:`files`.
        """
        columns = "page, completed, failed"
        found = self._file.page("batches", columns, "tenant = ?", [tenant], page)
        return [_batch_of(*row) for row in found]

    def open_batches(self) -> list[OwnedBatch]:
        """The batches that have not ended, the oldest first."""
        query = "SELECT tenant, key, page, completed, failed FROM batches WHERE open ORDER BY seq"
        rows = self._db.execute(query)
        return [OwnedBatch(tenant, key, _batch_of(*rest)) for tenant, key, *rest in rows]

    def count_open(self, tenant: str) -> int:
        """How many of the tenant's batches have not ended."""
        query = "SELECT count(*) FROM batches WHERE tenant = ? AND open"
        found: int = self._db.execute(query, (tenant,)).fetchone()[0]
        return found

    # Answers of lines.

    def answered_lines(self, batch_id: str) -> set[int]:
        """The numbers of the lines that have an answer."""
        query = "SELECT line FROM answers WHERE batch = ?"
        return {row[0] for row in self._db.execute(query, (batch_id,))}

    def record(self, batch_id: str, number: int, line: bytes, *, good: bool) -> None:
        """Save a line's answer; a later answer to the same line changes nothing."""
        with self._db:
            self._db.execute("BEGIN")
            insert = "INSERT OR IGNORE INTO answers VALUES (?,?,?,?)"
            added = self._db.execute(insert, (batch_id, number, good, line))
            column = "completed" if good else "failed"
            if added.rowcount:
                sql = f"UPDATE batches SET {column} = {column} + 1 WHERE id = ?"  # noqa: S608
                self._db.execute(sql, (batch_id,))

    def answers(self, batch_id: str, *, good: bool) -> Iterator[bytes]:
        """The answers, in the order of the lines, one in memory at a time."""
        query = "SELECT told FROM answers WHERE batch = ? AND good = ? ORDER BY line"
        for row in self._db.execute(query, (batch_id, good)):
            yield row[0]

    def _insert_file(self, tenant: str, file: FileObject) -> None:
        values = (file.id, tenant, file.purpose, file.bytes, _json(file))
        self._db.execute(
            "INSERT INTO files (id, tenant, purpose, bytes, page) VALUES (?,?,?,?,?)", values
        )


def _json(value: BaseModel) -> str:
    return value.model_dump_json()


def _batch_of(page: str, completed: int, failed: int) -> Batch:
    batch = Batch.model_validate_json(page)
    counts = RequestCounts(total=batch.request_counts.total, completed=completed, failed=failed)
    return batch.model_copy(update={"request_counts": counts})
