"""The SQLite file itself, as the one thread that owns it sees it: nothing here is asynchronous.

WAL with ``synchronous=NORMAL`` hands a commit to the kernel without waiting for the disk: that
outlives ``kill -9`` of the process; a power cut may cost the last seconds, and so a second
generation.

Many rows are one statement: Python's ``sqlite3`` lets go of the interpreter's lock at each, and
beside a busy event loop it waits up to 5 ms to get it back. There is no index by key: who owns the
file knows the row of each, so that a new one is written at the end and nowhere else.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sage_gateway.ledger.port import ROW_BYTES, Recorded

log = logging.getLogger("sage.gateway")

SCHEMA_VERSION = 2
SCHEMA = f"""BEGIN;
CREATE TABLE answers (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, digest BLOB NOT NULL,
    stream INTEGER NOT NULL, at REAL NOT NULL, body BLOB NOT NULL);
PRAGMA user_version={SCHEMA_VERSION};
COMMIT;"""
INSERT = "INSERT INTO answers (id, key, digest, stream, at, body) VALUES "
# The oldest rows, as far as they are too old or what came before them does not make room enough.
EVICT = f"""DELETE FROM answers WHERE id IN (
    SELECT id FROM (
        SELECT id, at, size, sum(size) OVER (ORDER BY id) - size AS before
        FROM (SELECT id, at, length(body) + {ROW_BYTES} AS size FROM answers ORDER BY id LIMIT ?)
    ) WHERE at < ? OR before < ?) RETURNING key, length(body)"""  # noqa: S608 - a constant
LOCKED_S = 0.5
EVICT_ROWS = 64
ROWS_A_STATEMENT = 500
BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Kept(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An answer with its key, and when it was recorded."""

    key: bytes
    digest: bytes
    stream: bool
    at: float
    body: bytes

    def recorded(self) -> Recorded:
        """The answer."""
        return Recorded(self.digest, self.stream, self.body)


class Rows:
    """The file at ``path``, opened when first used; a broken one is set aside as ``PATH.corrupt``.

    ``known`` (the row of each key) and the counts may be read from other threads. Methods raise
    ``sqlite3.Error`` or ``OSError``; the next call tries from the start.
    """

    def __init__(self, path: Path, *, ttl_s: float, bytes_max: int, file_bytes_max: int) -> None:
        self.path = path
        self.known: dict[bytes, int] = {}
        self.bytes_held = 0
        self.evicted = 0
        self._ttl_s = ttl_s
        self._bytes_max = bytes_max
        self._file_bytes_max = file_bytes_max
        self._next = 1
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """Make ready, if it is not."""
        self._opened()

    def insert(self, segment: int, answers: Sequence[Kept]) -> None:
        """Commit these, and make room; the first answer of a key stays.

        Whatever the number of the segment: what is there already changes nothing.
        """
        db = self._opened()
        first: dict[bytes, Kept] = {}
        for kept in answers:
            if kept.key not in self.known:
                first.setdefault(kept.key, kept)
        fresh = list(first.values())
        for at in range(0, len(fresh), ROWS_A_STATEMENT):
            some = fresh[at : at + ROWS_A_STATEMENT]
            rows = {kept.key: self._next + n for n, kept in enumerate(some)}
            values: list[object] = []
            for kept in some:
                key = kept.key
                values += (rows[key], key, kept.digest, kept.stream, kept.at, kept.body)
            db.execute(INSERT + ",".join(["(?,?,?,?,?,?)"] * len(some)), values)
            self._next += len(some)
            self.known.update(rows)
            self.bytes_held += sum(len(kept.body) + ROW_BYTES for kept in some)
        if self.bytes_held > self._bytes_max:
            self.evict()

    def find(self, key: bytes) -> Recorded | None:
        """The answer of ``key``; one that is too old goes, or the next would not be kept."""
        db = self._opened()
        asked = "SELECT digest, stream, body, at FROM answers WHERE id = ?"
        row = db.execute(asked, (self.known.get(key),)).fetchone()
        if row is None:
            return None
        if row[3] >= time.time() - self._ttl_s:
            return Recorded(row[0], bool(row[1]), row[2])
        db.execute("DELETE FROM answers WHERE id = ?", (self.known[key],))
        self._dropped([(key, len(row[2]))])
        return None

    def evict(self) -> None:
        """Drop what is too old, then the oldest until the rest fits; some rows at a time."""
        db = self._opened()
        while True:
            over = self.bytes_held - self._bytes_max
            rows = db.execute(EVICT, (EVICT_ROWS, time.time() - self._ttl_s, over)).fetchall()
            self._dropped(rows)
            if len(rows) < EVICT_ROWS:
                return

    def failed(self, error: Exception) -> None:
        """What an error of the other methods means for the file."""
        if getattr(error, "sqlite_errorcode", None) in BROKEN:
            self._set_aside(error)

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _dropped(self, rows: Sequence[tuple[bytes, int]]) -> None:
        for key, _ in rows:
            self.known.pop(key, None)
        self.bytes_held -= sum(size + ROW_BYTES for _, size in rows)
        self.evicted += len(rows)

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            try:
                self._db = self._connected()
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode not in BROKEN:
                    raise
                self._set_aside(error)
                self._db = self._connected()
        return self._db

    def _connected(self) -> sqlite3.Connection:
        # No statement is kept: one of many rows holds on to the answers that were bound to it.
        db = sqlite3.connect(self.path, timeout=LOCKED_S, isolation_level=None, cached_statements=0)
        try:
            self._prepare(db)
            rows = db.execute("SELECT id, key, length(body) FROM answers").fetchall()
        except BaseException:
            db.close()
            raise
        self.known.clear()
        self.known.update((key, row) for row, key, _ in rows)
        self._next = max(self.known.values(), default=0) + 1
        self.bytes_held = sum(size + ROW_BYTES for _, _, size in rows)
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            error = sqlite3.DatabaseError(f"its layout is of version {version}")
            error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
            raise error
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        page_bytes = db.execute("PRAGMA page_size").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={self._file_bytes_max // page_bytes}")
        if version == 0:
            db.executescript(SCHEMA)

    def _set_aside(self, error: Exception) -> None:
        """The broken file under another name (the last one only), so that a new one can be made."""
        self.close()
        self.known.clear()
        self.bytes_held = 0
        aside = self.path.with_name(self.path.name + ".corrupt")
        log.warning("ledger: %s is broken (%s); set aside as %s", self.path, error, aside)
        try:
            self.path.replace(aside)
            for end in ("-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        except OSError as stuck:
            log.error("ledger: %s cannot be set aside (%s); remove it", self.path, stuck)
