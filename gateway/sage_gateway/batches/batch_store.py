"""Files, batches and the answers of lines in SQLite; one thread asks, nothing here is asynchronous.

WAL with ``synchronous=NORMAL``: what was committed outlives ``kill -9``; a power cut may cost the
last seconds, which are then asked again. An answer and its count are one transaction, and so are
the end of a batch and the files that it made.
"""

import fcntl
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from sage_gateway.batches.schema import Batch, Counts, FileObject
from sage_gateway.batches.state_machine import over

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
"""


@dataclass(frozen=True, slots=True)
class Owned:
    """A batch, whose it is, and the id of the key that its lines are asked with."""

    tenant: str
    key: str
    batch: Batch


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of a list: what comes after an id, so many, in which order."""

    after: str | None
    limit: int
    newest_first: bool = True


class Rows:
    """The database at ``path``, of one process at a time. Methods raise ``sqlite3.Error``.

    Raises:
        OSError: another gateway has it, or it cannot be had.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        locked = path.with_suffix(".lock")
        for file in (path, locked):
            file.touch(mode=0o600)
        with ExitStack() as opened:
            lock = opened.enter_context(locked.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # two would run each batch twice
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            opened.callback(self._db.close)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(SCHEMA)
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    # Files.

    def add_file(self, tenant: str, file: FileObject, *, tenant_bytes_max: int) -> bool:
        """Keep what is told of a file; False if the tenant's files would then be too large."""
        asked = "SELECT coalesce(sum(bytes), 0) FROM files WHERE tenant = ?"
        held: int = self._db.execute(asked, (tenant,)).fetchone()[0]
        if held + file.bytes > tenant_bytes_max:
            return False
        self._insert_file(tenant, file)
        return True

    def file(self, tenant: str, file_id: str) -> FileObject | None:
        """The tenant's file of that id."""
        asked = "SELECT page FROM files WHERE id = ? AND tenant = ?"
        row = self._db.execute(asked, (file_id, tenant)).fetchone()
        return FileObject.model_validate_json(row[0]) if row else None

    def files(self, tenant: str, purpose: str | None, page: Page) -> list[FileObject]:
        """One more than ``page.limit`` if there are more."""
        where, values = "tenant = ?", [tenant]
        if purpose:
            where, values = f"{where} AND purpose = ?", [tenant, purpose]
        found = self._list("files", "page", where, values, page)
        return [FileObject.model_validate_json(row[0]) for row in found]

    def drop_file(self, tenant: str, file_id: str) -> bool | None:
        """Whether it was there and is gone; None if an open batch reads it."""
        asked = "SELECT 1 FROM batches WHERE tenant = ? AND input = ? AND open"
        if self._db.execute(asked, (tenant, file_id)).fetchone():
            return None
        found = self._db.execute("DELETE FROM files WHERE id = ? AND tenant = ?", (file_id, tenant))
        return found.rowcount > 0

    def file_ids(self) -> set[str]:
        """Of all files."""
        return {row[0] for row in self._db.execute("SELECT id FROM files")}

    # Batches.

    def add_batch(self, owned: Owned) -> None:
        """A new batch."""
        batch = owned.batch
        values = (batch.id, owned.tenant, owned.key, batch.input_file_id, 1, _json(batch))
        self._db.execute(
            "INSERT INTO batches (id, tenant, key, input, open, page) VALUES (?,?,?,?,?,?)", values
        )

    def save(self, batch: Batch) -> None:
        """What it is now; its counts are those of its answers, but for the total."""
        self._db.execute(
            "UPDATE batches SET page = ?, open = ? WHERE id = ?",
            (_json(batch), not over(batch.status), batch.id),
        )

    def finish(self, tenant: str, batch: Batch, files: Sequence[FileObject]) -> None:
        """Save its last state with the files that it made, and forget its answers."""
        with self._db:
            self._db.execute("BEGIN")
            for file in files:
                self._insert_file(tenant, file)
            self.save(batch)
            self._db.execute("DELETE FROM answers WHERE batch = ?", (batch.id,))

    def batch(self, tenant: str, batch_id: str) -> Batch | None:
        """The tenant's batch of that id, with its counts as they are now."""
        asked = "SELECT page, completed, failed FROM batches WHERE id = ? AND tenant = ?"
        row = self._db.execute(asked, (batch_id, tenant)).fetchone()
        return _counted(*row) if row else None

    def batches(self, tenant: str, page: Page) -> list[Batch]:
        """One more than ``page.limit`` if there are more; the newest first."""
        columns = "page, completed, failed"
        found = self._list("batches", columns, "tenant = ?", [tenant], page)
        return [_counted(*row) for row in found]

    def open_batches(self) -> list[Owned]:
        """Those that are not over, the oldest first."""
        asked = "SELECT tenant, key, page, completed, failed FROM batches WHERE open ORDER BY seq"
        return [Owned(t, key, _counted(*rest)) for t, key, *rest in self._db.execute(asked)]

    def count_open(self, tenant: str) -> int:
        """How many of the tenant's are not over."""
        asked = "SELECT count(*) FROM batches WHERE tenant = ? AND open"
        found: int = self._db.execute(asked, (tenant,)).fetchone()[0]
        return found

    # Answers of lines.

    def answered(self, batch_id: str) -> set[int]:
        """The numbers of the lines that have their answer."""
        asked = "SELECT line FROM answers WHERE batch = ?"
        return {row[0] for row in self._db.execute(asked, (batch_id,))}

    def record(self, batch_id: str, number: int, told: bytes, *, good: bool) -> None:
        """Keep a line's answer; the first one stays."""
        with self._db:
            self._db.execute("BEGIN")
            added = self._db.execute(
                "INSERT OR IGNORE INTO answers VALUES (?,?,?,?)", (batch_id, number, good, told)
            )
            column = "completed" if good else "failed"
            if added.rowcount:
                sql = f"UPDATE batches SET {column} = {column} + 1 WHERE id = ?"  # noqa: S608
                self._db.execute(sql, (batch_id,))

    def told(self, batch_id: str, *, good: bool) -> Iterator[bytes]:
        """The answers, in the order of the lines, one in memory at a time."""
        asked = "SELECT told FROM answers WHERE batch = ? AND good = ? ORDER BY line"
        for row in self._db.execute(asked, (batch_id, good)):
            yield row[0]

    def _insert_file(self, tenant: str, file: FileObject) -> None:
        values = (file.id, tenant, file.purpose, file.bytes, _json(file))
        self._db.execute(
            "INSERT INTO files (id, tenant, purpose, bytes, page) VALUES (?,?,?,?,?)", values
        )

    def _list(
        self, table: str, columns: str, where: str, values: Sequence[object], page: Page
    ) -> list[tuple[Any, ...]]:
        """``table``, ``where`` and ``columns`` are constants of this class."""
        if page.after is not None:
            sign = "<" if page.newest_first else ">"
            where += f" AND seq {sign} (SELECT seq FROM {table} WHERE id = ?)"  # noqa: S608
            values = [*values, page.after]
        order = "DESC" if page.newest_first else "ASC"
        asked = f"SELECT {columns} FROM {table} WHERE {where} ORDER BY seq {order} LIMIT ?"  # noqa: S608
        return self._db.execute(asked, [*values, page.limit + 1]).fetchall()


def _json(shape: BaseModel) -> str:
    return shape.model_dump_json()


def _counted(page: str, completed: int, failed: int) -> Batch:
    batch = Batch.model_validate_json(page)
    counts = Counts(total=batch.request_counts.total, completed=completed, failed=failed)
    return batch.model_copy(update={"request_counts": counts})
