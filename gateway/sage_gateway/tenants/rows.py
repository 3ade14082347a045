"""The tenants' SQLite file as the one thread that owns it sees it: nothing here is asynchronous.

Charges are only ever added; what takes one back is a charge with negative counts. Once they are a
minute old they are folded into one row each of ``used``. WAL with ``synchronous=NORMAL`` outlives
``kill -9``; a power cut may cost the last seconds.

Many rows are one statement: Python's ``sqlite3`` lets go of the interpreter's lock at each, and
beside a busy event loop it waits up to 5 ms to get it back.
"""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from pydantic import TypeAdapter

from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.port import Charge, Row

SCHEMA_VERSION = 1
COLUMNS = "day, tenant, key, model, job, requests, prompt_tokens, completion_tokens"
SUMS = "sum(requests), sum(prompt_tokens), sum(completion_tokens)"
BY = "day, tenant, key, model, job"
TYPES = """day INTEGER NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
    job TEXT NOT NULL, requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL"""
SCHEMA = f"""BEGIN;
CREATE TABLE keys (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE charges (id INTEGER PRIMARY KEY, at REAL NOT NULL, once BLOB NOT NULL, {TYPES});
CREATE TABLE used ({TYPES}, PRIMARY KEY ({BY})) WITHOUT ROWID;
PRAGMA user_version={SCHEMA_VERSION};
COMMIT;"""
#: The last segment of the journal whose charges are here.
WRITTEN = "CREATE TABLE IF NOT EXISTS written (segment INTEGER NOT NULL)"
INSERT = f"INSERT INTO charges (at, once, {COLUMNS}) VALUES "  # noqa: S608 - constants
FOLD = f"""INSERT INTO used ({COLUMNS})
    SELECT {BY}, {SUMS} FROM charges WHERE at < ? GROUP BY {BY}
    ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens"""  # noqa: S608
SELECT = f"""SELECT {BY}, {SUMS} FROM (
        SELECT {COLUMNS} FROM used WHERE day BETWEEN :first AND :last
        UNION ALL SELECT {COLUMNS} FROM charges WHERE day BETWEEN :first AND :last
    ) GROUP BY {BY} HAVING sum(requests) OR sum(prompt_tokens + completion_tokens)
    ORDER BY {BY}"""  # noqa: S608
LOCKED_S = 0.5
ROWS_A_STATEMENT = 500
FOLD_EVERY_S, FOLD_AFTER_S = 30.0, 60.0
KEPT_DAYS = 400
#: Between its charge and its record an answer waits for the ledger; so much at most.
UNRECORDED_S = 10.0

KEY = TypeAdapter(Key)


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A charge, with its name if it has one, and when it was made."""

    charge: Charge
    once: bytes
    at: float


class Rows:
    """The file at ``path``, opened when first used. Methods raise ``sqlite3.Error``, ``OSError``.

    A broken file stays as it is: without it nobody knows what is spent, so a person has to look.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None
        self._fold_at = time.monotonic() + FOLD_EVERY_S

    def written(self) -> int:
        """The number of the last segment that was inserted, 0 before the first."""
        found = self._opened().execute("SELECT max(segment) FROM written").fetchone()
        return found[0] or 0

    def insert(self, segment: int, entries: Sequence[Entry]) -> None:
        """Commit the charges of a segment, all or none, unless that was done."""
        db = self._opened()
        with db:
            db.execute("BEGIN IMMEDIATE")
            if segment <= self.written():
                return
            for at in range(0, len(entries), ROWS_A_STATEMENT):
                some = entries[at : at + ROWS_A_STATEMENT]
                values: list[object] = []
                for entry in some:
                    values += (entry.at, entry.once, *_flat(entry.charge))
                marks = ",".join(["(?,?,?,?,?,?,?,?,?,?)"] * len(some))
                db.execute(INSERT + marks, values)
            db.execute("DELETE FROM written")
            db.execute("INSERT INTO written VALUES (?)", (segment,))
        if time.monotonic() > self._fold_at:
            self._fold_at = time.monotonic() + FOLD_EVERY_S
            self.fold()

    def used(self, first_day: int, last_day: int) -> tuple[Charge, ...]:
        """The sums of these days, one a row, sorted."""
        found = self._opened().execute(SELECT, {"first": first_day, "last": last_day})
        return tuple(_charges(found))

    def unrecorded(self) -> dict[bytes, Charge]:
        """The named charges of the last moments of whoever wrote here last, if not taken back."""
        select = f"""SELECT {COLUMNS}, once FROM charges WHERE once != x''
            AND at >= (SELECT max(at) FROM charges) - ? ORDER BY id"""  # noqa: S608
        found = self._opened().execute(select, (UNRECORDED_S,)).fetchall()
        charges: dict[bytes, Charge] = {}
        for row in found:
            charge = Charge(Row(*row[:5]), *row[5:8])
            if charge.requests > 0:
                charges[row[8]] = charge
            else:
                charges.pop(row[8], None)
        return charges

    def keys(self) -> tuple[Key, ...]:
        """Every key."""
        found = self._opened().execute("SELECT body FROM keys")
        return tuple(KEY.validate_json(body) for (body,) in found)

    def keep(self, key: Key) -> None:
        """Commit a key."""
        body = KEY.dump_json(key).decode()
        self._opened().execute("INSERT INTO keys (id, body) VALUES (?, ?)", (key.id, body))

    def drop(self, key_id: str) -> bool:
        """Remove a key; whether there was one."""
        return self._opened().execute("DELETE FROM keys WHERE id = ?", (key_id,)).rowcount > 0

    def fold(self) -> None:
        """Put old charges together, and forget what is older than ``KEPT_DAYS``."""
        db = self._opened()
        until = time.time() - FOLD_AFTER_S
        oldest = f"{datetime.now(UTC) - timedelta(days=KEPT_DAYS):%Y%m%d}"
        with db:
            db.execute("BEGIN IMMEDIATE")
            db.execute(FOLD, (until,))
            db.execute("DELETE FROM charges WHERE at < ?", (until,))
            db.execute("DELETE FROM used WHERE day < ?", (int(oldest),))

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _opened(self) -> sqlite3.Connection:
        if self._db is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch(mode=0o600)
            # No statement is kept: one of many rows holds on to what was bound to it.
            db = sqlite3.connect(
                self.path, timeout=LOCKED_S, isolation_level=None, cached_statements=0
            )
            try:
                _prepare(db, self.path)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, SCHEMA_VERSION):
        raise sqlite3.DatabaseError(f"its layout is of version {version}; move {path} away")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    if version == 0:
        db.executescript(SCHEMA)
    db.execute(WRITTEN)


def _flat(charge: Charge) -> tuple[object, ...]:
    row = charge.row
    counts = (charge.requests, charge.prompt_tokens, charge.completion_tokens)
    return (row.day, row.tenant, row.key, row.model, row.job, *counts)


def _charges(found: Iterable[Sequence[object]]) -> Iterator[Charge]:
    for row in found:
        yield Charge(Row(*row[:5]), *row[5:8])  # type: ignore[arg-type]
