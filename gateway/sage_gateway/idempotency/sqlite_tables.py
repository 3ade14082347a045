"""The SQLite file itself, as the one thread that owns it sees it: nothing here is asynchronous.

WAL with ``synchronous=NORMAL`` hands a commit to the kernel without waiting for the disk: that
outlives ``kill -9`` of the process; a power cut may cost the last seconds, and so a second
generation.

Answers are written in blocks, many small ones in one value: to bind a row for each took three
quarters of this thread's time, and the event loop waited for the interpreter's lock meanwhile.
There is no index by key: who owns the file knows the place of each, so that a new one is written at
the end and nowhere else. What goes for its age or for want of room goes by blocks.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from sage_gateway.idempotency.store_protocol import ROW_BYTES, Recorded

log = logging.getLogger("sage.gateway")

SCHEMA_VERSION = 3
SCHEMA = f"""BEGIN;
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, bytes INTEGER NOT NULL, answers BLOB NOT NULL);
PRAGMA user_version={SCHEMA_VERSION};
COMMIT;"""
INSERT = "INSERT INTO blocks (id, at, bytes, answers) VALUES (?, ?, ?, ?)"
SELECT = "SELECT id, bytes, answers FROM blocks ORDER BY id"
# The oldest, as far as they are too old or what came before them does not make room enough.
EVICT = """DELETE FROM blocks WHERE id IN (
    SELECT id FROM (
        SELECT id, at, sum(bytes) OVER (ORDER BY id) - bytes AS before
        FROM (SELECT id, at, bytes FROM blocks ORDER BY id LIMIT ?)
    ) WHERE at < ? OR before < ?) RETURNING id, bytes, answers"""
LOCKED_S = 0.5
EVICT_BLOCKS = 4
#: Of a block with more than one answer: all of it is read for any of them.
BLOCK_BYTES_MAX = 64 << 10
#: A block is at most this share of all answers, so that little goes before it has to.
BLOCK_SHARE = 64
PLACES = 1 << 16
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


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[Kept])


class Rows:
    """The file at ``path``, opened when first used; a broken one is set aside as ``PATH.corrupt``.

    ``known`` (the place of each key) and the counts may be read from other threads. Methods raise
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
        self._block_bytes = min(BLOCK_BYTES_MAX, bytes_max // BLOCK_SHARE)
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
        for block in self._cut(first.values()):
            size, last = sum(map(_bytes, block)), max(kept.at for kept in block)
            db.execute(INSERT, (self._next, last, size, _ENCODER.encode(block)))
            self._has(self._next, size, block)
        if self.bytes_held > self._bytes_max:
            self.evict()

    def find(self, key: bytes) -> Recorded | None:
        """The answer of ``key``; one that is too old goes, or the next would not be kept."""
        place = self.known.get(key)
        if place is None:
            return None
        asked = "SELECT answers FROM blocks WHERE id = ?"
        row = self._opened().execute(asked, (place // PLACES,)).fetchone()
        if row is None:
            return None
        kept = _read(row[0])[place % PLACES]
        if kept.at >= time.time() - self._ttl_s:
            return kept.recorded()
        del self.known[key]
        self.evicted += 1
        return None

    def evict(self) -> None:
        """Drop what is too old, then the oldest until the rest fits; some blocks at a time."""
        db = self._opened()
        while True:
            over = self.bytes_held - self._bytes_max
            gone = db.execute(EVICT, (EVICT_BLOCKS, time.time() - self._ttl_s, over)).fetchall()
            for number, size, block in gone:
                self._dropped(number, size, _read(block))
            if len(gone) < EVICT_BLOCKS:
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

    def _cut(self, answers: Iterable[Kept]) -> Iterator[list[Kept]]:
        """The same in blocks, one larger than a block by itself."""
        block: list[Kept] = []
        size = 0
        for kept in answers:
            if block and (size + _bytes(kept) > self._block_bytes or len(block) == PLACES):
                yield block
                block, size = [], 0
            block.append(kept)
            size += _bytes(kept)
        if block:
            yield block

    def _has(self, number: int, size: int, block: Sequence[Kept]) -> None:
        """A block is in the file."""
        self._next = number + 1
        self.known.update((kept.key, number * PLACES + n) for n, kept in enumerate(block))
        self.bytes_held += size

    def _dropped(self, number: int, size: int, block: Sequence[Kept]) -> None:
        """A block is there no more; what was recorded anew since is in another."""
        for place, kept in enumerate(block, number * PLACES):
            if self.known.get(kept.key) == place:
                del self.known[kept.key]
                self.evicted += 1
        self.bytes_held -= size

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
            self._forget()
            for number, size, block in db.execute(SELECT):
                self._has(number, size, _read(block))
        except BaseException:
            db.close()
            raise
        return db

    def _forget(self) -> None:
        self.known.clear()
        self.bytes_held, self._next = 0, 1

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise _broken(f"its layout is of version {version}")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        page_bytes = db.execute("PRAGMA page_size").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={self._file_bytes_max // page_bytes}")
        if version == 0:
            db.executescript(SCHEMA)

    def _set_aside(self, error: Exception) -> None:
        """The broken file under another name (the last one only), so that a new one can be made."""
        self.close()
        self._forget()
        aside = self.path.with_name(self.path.name + ".corrupt")
        log.warning("ledger: %s is broken (%s); set aside as %s", self.path, error, aside)
        try:
            self.path.replace(aside)
            for end in ("-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        except OSError as stuck:
            log.error("ledger: %s cannot be set aside (%s); remove it", self.path, stuck)


def _bytes(kept: Kept) -> int:
    return len(kept.body) + ROW_BYTES


def _read(block: bytes) -> list[Kept]:
    try:
        return _DECODER.decode(block)
    except msgspec.MsgspecError as error:
        raise _broken(f"a block is none: {error}") from error


def _broken(why: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(why)
    error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
    return error
