"""SQLite file of the tenants' store: keys and usage. Synchronous; one thread calls it.

Charges are only ever added; a charge with negative counts reverses one. The sums of a segment of
the write-ahead log are added to ``used`` in one transaction with its number. The named charges of
the last moments are kept as well, those of a segment in one value. WAL with ``synchronous=NORMAL``
survives ``kill -9``; a power cut may lose the last seconds.

Many rows are one statement: Python's ``sqlite3`` releases the interpreter's lock at each statement,
and next to a busy event loop it waits up to 5 ms to get it back.
"""

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
from pydantic import TypeAdapter

from sage_gateway.storage.sqlite import open_database
from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.store_protocol import Charge, UsageKey, sum_charges

SCHEMA_VERSION = 2
COLUMNS = "day, tenant, key, model, job, requests, prompt_tokens, completion_tokens"
BY = "day, tenant, key, model, job"
SCHEMA = f"""CREATE TABLE keys (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE used (
    day INTEGER NOT NULL, tenant TEXT NOT NULL, key TEXT NOT NULL, model TEXT NOT NULL,
    job TEXT NOT NULL, requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, PRIMARY KEY ({BY})) WITHOUT ROWID;"""
#: The last segment in the file; the named charges of each segment, and the time of its last one.
SEGMENTS = """CREATE TABLE IF NOT EXISTS written (segment INTEGER NOT NULL);
CREATE TABLE named (segment INTEGER PRIMARY KEY, at REAL NOT NULL, charges BLOB NOT NULL);"""
ADD = """ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens"""
INSERT = f"INSERT INTO used ({COLUMNS}) VALUES "  # noqa: S608 - constants
SELECT = f"""SELECT {COLUMNS} FROM used WHERE day BETWEEN ? AND ?
    AND (requests OR prompt_tokens OR completion_tokens) ORDER BY {BY}"""  # noqa: S608
#: Migration from the first layout, which had each charge in a row until it was a minute old. The
#: names are dropped: they matter only in the moments after a ``kill -9``.
FROM_1 = f"""INSERT INTO used ({COLUMNS})
    SELECT {BY}, sum(requests), sum(prompt_tokens), sum(completion_tokens)
    FROM charges WHERE true GROUP BY {BY} {ADD};
DROP TABLE charges;"""  # noqa: S608
ROWS_A_STATEMENT = 500
KEPT_DAYS = 400
#: The longest time between the charge of an answer and its record in the idempotency store.
REVERSIBLE_S = 10.0

KEY = TypeAdapter(Key)


class ChargeEntry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A charge, the record key that names its call or an empty one, and when it was made.

    ``more``: further charges of that moment. An entry is written as a whole or not at all.
    """

    charge: Charge
    record_key: bytes
    at: float
    more: tuple[Charge, ...] = ()


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[ChargeEntry])


class UsageTables:
    """The file at ``path``, opened at the first call. Methods raise ``sqlite3.Error``, ``OSError``.

    A corrupt file is left as it is: it has what the budgets have spent, so an operator must decide.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db: sqlite3.Connection | None = None

    def last_segment(self) -> int:
        """The number of the last segment that was inserted, 0 before the first."""
        found = self._database().execute("SELECT max(segment) FROM written").fetchone()
        return found[0] or 0

    def insert(self, segment: int, entries: Sequence[ChargeEntry]) -> None:
        """Commit the charges of a segment in one transaction, unless it was committed before."""
        db = self._database()
        with db:
            db.execute("BEGIN IMMEDIATE")
            if segment <= self.last_segment():
                return
            sums = sum_charges([one for entry in entries for one in (entry.charge, *entry.more)])
            for at in range(0, len(sums), ROWS_A_STATEMENT):
                some = sums[at : at + ROWS_A_STATEMENT]
                values = [value for charge in some for value in _flat(charge)]
                marks = ",".join(["(?,?,?,?,?,?,?,?)"] * len(some))
                db.execute(f"{INSERT}{marks} {ADD}", values)
            self._insert_names(db, segment, entries)
            db.execute("DELETE FROM written")
            db.execute("INSERT INTO written VALUES (?)", (segment,))
            oldest = f"{datetime.now(UTC) - timedelta(days=KEPT_DAYS):%Y%m%d}"
            db.execute("DELETE FROM used WHERE day < ?", (int(oldest),))

    def usage(self, first_day: int, last_day: int) -> tuple[Charge, ...]:
        """The usage of these days, one sum for each :class:`UsageKey`, sorted."""
        found = self._database().execute(SELECT, (first_day, last_day))
        return tuple(Charge(UsageKey(*row[:5]), *row[5:]) for row in found)

    def reversible_charges(self) -> dict[bytes, Charge]:
        """The named charges of a crashed process's last moments, without those reversed since."""
        found = self._database().execute("SELECT charges FROM named ORDER BY segment").fetchall()
        charges: dict[bytes, Charge] = {}
        for entry in (entry for (named,) in found for entry in _DECODER.decode(named)):
            if entry.charge.requests > 0:
                charges[entry.record_key] = entry.charge
            else:
                charges.pop(entry.record_key, None)
        return charges

    def delete_names(self) -> None:
        """Commit that no charge is reversible any more."""
        self._database().execute("DELETE FROM named")

    def keys(self) -> tuple[Key, ...]:
        """Every key."""
        found = self._database().execute("SELECT body FROM keys")
        return tuple(KEY.validate_json(body) for (body,) in found)

    def add_key(self, key: Key) -> None:
        """Commit a new key."""
        body = KEY.dump_json(key).decode()
        self._database().execute("INSERT INTO keys (id, body) VALUES (?, ?)", (key.id, body))

    def delete_key(self, key_id: str) -> bool:
        """Delete a key; whether it existed."""
        return self._database().execute("DELETE FROM keys WHERE id = ?", (key_id,)).rowcount > 0

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _insert_names(
        self, db: sqlite3.Connection, segment: int, entries: Sequence[ChargeEntry]
    ) -> None:
        """Insert the named charges of a segment, and delete those older than ``REVERSIBLE_S``."""
        if not entries:
            return
        last = max(entry.at for entry in entries)
        if named := [entry for entry in entries if entry.record_key]:
            db.execute(
                "INSERT INTO named VALUES (?, ?, ?)", (segment, last, _ENCODER.encode(named))
            )
        db.execute("DELETE FROM named WHERE at < ?", (last - REVERSIBLE_S,))

    def _database(self) -> sqlite3.Connection:
        if self._db is None:
            self._db = open_database(self.path, partial(_prepare, path=self.path))
        return self._db


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, 1, SCHEMA_VERSION):
        raise sqlite3.DatabaseError(f"its layout is of version {version}; move {path} away")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    if version != SCHEMA_VERSION:
        layout = (SCHEMA if version == 0 else FROM_1) + SEGMENTS
        db.executescript(f"BEGIN; {layout} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")


def _flat(charge: Charge) -> tuple[object, ...]:
    row = charge.row
    counts = (charge.requests, charge.prompt_tokens, charge.completion_tokens)
    return (row.day, row.tenant, row.key, row.model, row.job, *counts)
