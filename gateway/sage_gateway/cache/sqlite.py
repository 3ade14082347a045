"""Cache store in a SQLite file, kept through restarts; the oldest answers are evicted first.

WAL with ``synchronous=NORMAL`` survives ``kill -9``; a power cut may lose the last seconds. Several
gateways may share the file. A corrupt one is deleted: it has nothing that cannot be asked again.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import tenacity
from typing_extensions import override

from sage_gateway.cache.store_protocol import ROW_BYTES, CacheStore
from sage_gateway.runtime.worker_thread import WorkerThread
from sage_gateway.storage.sqlite import CORRUPT, open_database

log = logging.getLogger("sage.gateway")

SCHEMA_VERSION = 1
SCHEMA = (
    "CREATE TABLE answers (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, "
    "expires REAL NOT NULL, answer BLOB NOT NULL)",
    "CREATE TABLE size (bytes INTEGER NOT NULL)",
    "INSERT INTO size VALUES (0)",
    f"PRAGMA user_version={SCHEMA_VERSION}",
)
OPEN_S = 2.0
#: Statements are short, so that another gateway waits less than ``LOCKED_S``.
ROWS_A_STATEMENT = 500


class SqliteCacheStore(CacheStore):
    """The file at ``path``, opened at the first call."""

    def __init__(
        self, path: Path, *, bytes_max: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._answers = CachedAnswers(path, bytes_max, clock)
        self._thread = WorkerThread("cache", self._answers.on_error)

    @override
    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return await self._thread(self._answers.get, keys)

    @override
    async def put(self, answers: Mapping[bytes, bytes], ttl_s: int) -> None:
        await self._thread(self._answers.put, answers, ttl_s)

    @override
    async def clear(self) -> None:
        await self._thread(self._answers.clear)

    @override
    async def close(self) -> None:
        await self._thread(self._answers.close)
        await self._thread.close()


class CachedAnswers:
    """The tables of the file at ``path``. Synchronous; one thread calls it.

    Methods raise ``sqlite3.Error`` or ``OSError``.
    """

    def __init__(self, path: Path, bytes_max: int, clock: Callable[[], float]) -> None:
        self._path, self._bytes_max, self._clock = path, bytes_max, clock
        self._db: sqlite3.Connection | None = None

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The answer of each key; None where there is none."""
        found: dict[bytes, bytes] = {}
        db, now_s = self._database(), self._clock()
        for start in range(0, len(keys), ROWS_A_STATEMENT):
            some = keys[start : start + ROWS_A_STATEMENT]
            query = f"SELECT key, answer FROM answers WHERE expires > ? AND key IN ({_marks(some)})"  # noqa: S608
            found.update(db.execute(query, (now_s, *some)).fetchall())
        return [found.get(key) for key in keys]

    def put(self, answers: Mapping[bytes, bytes], ttl_s: int) -> None:
        """Insert the answers, and evict the oldest ones that have expired or do not fit."""
        db, expires_s = self._database(), self._clock() + ttl_s
        rows = list(answers.items())
        for start in range(0, len(rows), ROWS_A_STATEMENT):
            some = rows[start : start + ROWS_A_STATEMENT]
            keys = [key for key, _ in some]
            with _transaction(db):
                gone = _remove(db, f"key IN ({_marks(keys)})", keys)
                places = ", ".join(["(?, ?, ?)"] * len(some))
                values = [value for key, answer in some for value in (key, expires_s, answer)]
                db.execute(f"INSERT INTO answers (key, expires, answer) VALUES {places}", values)  # noqa: S608
                new = sum(len(answer) + ROW_BYTES for _, answer in some)
                db.execute("UPDATE size SET bytes = bytes + ?", (new - gone,))
                self._evict(db)

    def clear(self) -> None:
        """Delete all answers; their bytes leave the disk too."""
        db = self._database()
        with _transaction(db):
            db.execute("DELETE FROM answers")
            db.execute("UPDATE size SET bytes = 0")
        db.execute("VACUUM")  # short: it copies what is left
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def on_error(self, error: Exception) -> None:
        """Delete the file if ``error``, raised by another method, means that it is corrupt."""
        if getattr(error, "sqlite_errorcode", None) in CORRUPT:
            log.warning("cache: %s is corrupt (%s) and is made anew", self._path, error)
            self.close()
            for suffix in ("", "-wal", "-shm"):
                self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _evict(self, db: sqlite3.Connection) -> None:
        now_s = self._clock()
        while True:
            [[size]] = db.execute("SELECT bytes FROM size").fetchall()
            oldest = db.execute(
                "SELECT id, length(answer), expires FROM answers ORDER BY id LIMIT ?",
                (ROWS_A_STATEMENT,),
            ).fetchall()
            last = None
            for id_, length, expires_s in oldest:
                if size <= self._bytes_max and expires_s > now_s:
                    break
                last, size = id_, size - length - ROW_BYTES
            if last is None:
                return
            gone = _remove(db, "id <= ?", [last])
            db.execute("UPDATE size SET bytes = bytes - ?", (gone,))

    def _database(self) -> sqlite3.Connection:
        if self._db is None:
            # SQLite does not wait where several gateways make a new file a WAL at the same time.
            retry = tenacity.Retrying(
                retry=tenacity.retry_if_exception(_is_locked),
                wait=tenacity.wait_random(0.01, 0.05),
                stop=tenacity.stop_after_delay(OPEN_S),
                reraise=True,
            )
            self._db = retry(open_database, self._path, _prepare)
        return self._db


def _is_locked(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    with _transaction(db):  # of several gateways the first one makes the tables
        [[version]] = db.execute("PRAGMA user_version").fetchall()
        if version not in (0, SCHEMA_VERSION):
            db.execute("DROP TABLE answers")
            db.execute("DROP TABLE size")
        for statement in SCHEMA if version != SCHEMA_VERSION else ():
            db.execute(statement)


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise


def _remove(db: sqlite3.Connection, condition: str, values: Sequence[object]) -> int:
    """Delete the rows of a condition; their bytes."""
    gone = db.execute(f"DELETE FROM answers WHERE {condition} RETURNING length(answer)", values)  # noqa: S608
    return sum(length + ROW_BYTES for (length,) in gone.fetchall())


def _marks(keys: Sequence[object]) -> str:
    return ", ".join("?" * len(keys))
