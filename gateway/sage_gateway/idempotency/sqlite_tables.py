"""SQLite file of the idempotency store: blocks of answers. Synchronous; one thread calls it.

WAL with ``synchronous=NORMAL`` hands a commit to the kernel without waiting for the disk. It
survives ``kill -9`` of the process; a power cut may lose the last seconds, and those answers are
generated again.

Answers are written in blocks, many small ones in one value: binding a row for each took three
quarters of this thread's time, while the event loop waited for the interpreter's lock. The file has
no index by key: the place of each key is known in memory, so that a new answer is appended and
changes no other page. Eviction deletes whole blocks.
"""

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from sage_gateway.idempotency.store_protocol import ROW_BYTES, RecordedAnswer
from sage_gateway.storage.sqlite import CORRUPT, open_database

log = logging.getLogger("sage.gateway")

SCHEMA_VERSION = 3
SCHEMA = f"""BEGIN;
CREATE TABLE blocks (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, bytes INTEGER NOT NULL, answers BLOB NOT NULL);
PRAGMA user_version={SCHEMA_VERSION};
COMMIT;"""
INSERT = "INSERT INTO blocks (id, at, bytes, answers) VALUES (?, ?, ?, ?)"
SELECT = "SELECT id, bytes, answers FROM blocks ORDER BY id"
# The oldest blocks, while they are too old or those before them do not free enough bytes.
EVICT = """DELETE FROM blocks WHERE id IN (
    SELECT id FROM (
        SELECT id, at, sum(bytes) OVER (ORDER BY id) - bytes AS before
        FROM (SELECT id, at, bytes FROM blocks ORDER BY id LIMIT ?)
    ) WHERE at < ? OR before < ?) RETURNING id, bytes, answers"""
EVICT_BLOCKS = 4
#: Of a block with more than one answer: the whole block is read for any of them.
BLOCK_BYTES_MAX = 64 << 10
#: A block is at most this share of all bytes, so that eviction deletes little more than it must.
BLOCK_SHARE = 64
ANSWERS_A_BLOCK = 1 << 16


class StoredAnswer(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An answer with its key, and when it was recorded."""

    key: bytes
    digest: bytes
    stream: bool
    at: float
    body: bytes

    def answer(self) -> RecordedAnswer:
        """The answer."""
        return RecordedAnswer(self.digest, self.stream, self.body)


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[StoredAnswer])


class AnswerBlocks:
    """The file at ``path``, opened at the first call; a corrupt one is renamed ``PATH.corrupt``.

    ``places`` (where each key is) and the counters may be read from other threads. Methods raise
    ``sqlite3.Error`` or ``OSError``; the next call starts afresh.
    """

    def __init__(self, path: Path, *, ttl_s: float, bytes_max: int, file_bytes_max: int) -> None:
        self.path = path
        self.places: dict[bytes, int] = {}
        self.bytes_held = 0
        self.evictions = 0
        self._ttl_s = ttl_s
        self._bytes_max = bytes_max
        self._file_bytes_max = file_bytes_max
        self._block_bytes = min(BLOCK_BYTES_MAX, bytes_max // BLOCK_SHARE)
        self._next = 1
        self._db: sqlite3.Connection | None = None

    def open(self) -> None:
        """Open the file, if it is not open."""
        self._database()

    def insert(self, segment: int, answers: Sequence[StoredAnswer]) -> None:
        """Commit these answers, and evict; of several answers to a key the first one stays.

        The segment's number does not matter: a key that is in the file is not inserted again.
        """
        db = self._database()
        new: dict[bytes, StoredAnswer] = {}
        for answer in answers:
            if answer.key not in self.places:
                new.setdefault(answer.key, answer)
        for block in self._split(new.values()):
            size, last = sum(map(_bytes, block)), max(answer.at for answer in block)
            db.execute(INSERT, (self._next, last, size, _ENCODER.encode(block)))
            self._add(self._next, size, block)
        if self.bytes_held > self._bytes_max:
            self.evict()

    def find(self, key: bytes) -> RecordedAnswer | None:
        """The answer of ``key``. One that is too old is forgotten, so that a new one can follow."""
        place = self.places.get(key)
        if place is None:
            return None
        query = "SELECT answers FROM blocks WHERE id = ?"
        row = self._database().execute(query, (place // ANSWERS_A_BLOCK,)).fetchone()
        if row is None:
            return None
        stored = _decode(row[0])[place % ANSWERS_A_BLOCK]
        if stored.at >= time.time() - self._ttl_s:
            return stored.answer()
        del self.places[key]
        self.evictions += 1
        return None

    def evict(self) -> None:
        """Delete what is too old, then the oldest blocks until the rest fits; in small steps."""
        db = self._database()
        while True:
            excess = self.bytes_held - self._bytes_max
            deleted = db.execute(EVICT, (EVICT_BLOCKS, time.time() - self._ttl_s, excess))
            rows = deleted.fetchall()
            for number, size, block in rows:
                self._remove(number, size, _decode(block))
            if len(rows) < EVICT_BLOCKS:
                return

    def on_error(self, error: Exception) -> None:
        """Move the file away if ``error``, raised by another method, means that it is corrupt."""
        if getattr(error, "sqlite_errorcode", None) in CORRUPT:
            self._move_away(error)

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _split(self, answers: Iterable[StoredAnswer]) -> Iterator[list[StoredAnswer]]:
        """The answers in blocks; one that is larger than a block has a block of its own."""
        block: list[StoredAnswer] = []
        size = 0
        for answer in answers:
            full = size + _bytes(answer) > self._block_bytes or len(block) == ANSWERS_A_BLOCK
            if block and full:
                yield block
                block, size = [], 0
            block.append(answer)
            size += _bytes(answer)
        if block:
            yield block

    def _add(self, number: int, size: int, block: Sequence[StoredAnswer]) -> None:
        """Note that a block is in the file."""
        self._next = number + 1
        first = number * ANSWERS_A_BLOCK
        self.places.update((answer.key, first + n) for n, answer in enumerate(block))
        self.bytes_held += size

    def _remove(self, number: int, size: int, block: Sequence[StoredAnswer]) -> None:
        """Note that a block was deleted; newer answers to its keys are in other blocks."""
        for place, answer in enumerate(block, number * ANSWERS_A_BLOCK):
            if self.places.get(answer.key) == place:
                del self.places[answer.key]
                self.evictions += 1
        self.bytes_held -= size

    def _database(self) -> sqlite3.Connection:
        if self._db is None:
            try:
                self._db = open_database(self.path, self._load)
            except sqlite3.DatabaseError as error:
                if error.sqlite_errorcode not in CORRUPT:
                    raise
                self._move_away(error)
                self._db = open_database(self.path, self._load)
        return self._db

    def _load(self, db: sqlite3.Connection) -> None:
        self._prepare(db)
        self._clear()
        for number, size, block in db.execute(SELECT):
            self._add(number, size, _decode(block))

    def _clear(self) -> None:
        self.places.clear()
        self.bytes_held, self._next = 0, 1

    def _prepare(self, db: sqlite3.Connection) -> None:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, SCHEMA_VERSION):
            raise _corrupt(f"its layout is of version {version}")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=NORMAL")
        page_bytes = db.execute("PRAGMA page_size").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={self._file_bytes_max // page_bytes}")
        if version == 0:
            db.executescript(SCHEMA)

    def _move_away(self, error: Exception) -> None:
        """Rename the corrupt file, over an earlier one, so that a new file can be created."""
        self.close()
        self._clear()
        target = self.path.with_name(self.path.name + ".corrupt")
        log.warning("idempotency: %s is corrupt (%s); renamed to %s", self.path, error, target)
        try:
            self.path.replace(target)
            for suffix in ("-wal", "-shm"):
                self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        except OSError as failure:
            log.error("idempotency: %s cannot be renamed (%s); remove it", self.path, failure)


def _bytes(answer: StoredAnswer) -> int:
    return len(answer.body) + ROW_BYTES


def _decode(block: bytes) -> list[StoredAnswer]:
    try:
        return _DECODER.decode(block)
    except msgspec.MsgspecError as error:
        raise _corrupt(f"a block cannot be decoded: {error}") from error


def _corrupt(reason: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(reason)
    error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
    return error
