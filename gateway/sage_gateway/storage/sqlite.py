"""SQLite files of one gateway, opened for a single thread."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

#: How long a statement waits for another process that writes.
LOCKED_S = 0.5
#: Codes of errors that mean that a file is no database, or not a whole one.
CORRUPT = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


def open_database(path: Path, prepare: Callable[[sqlite3.Connection], None]) -> sqlite3.Connection:
    """The database at ``path``, made where it is absent (mode 0600), after ``prepare``.

    Statements are not cached: one of many rows would keep the values bound to it.

    Raises:
        sqlite3.Error, OSError: it cannot be opened, or ``prepare`` raises; it is closed then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    db = sqlite3.connect(path, timeout=LOCKED_S, isolation_level=None, cached_statements=0)
    try:
        prepare(db)
    except BaseException:
        db.close()
        raise
    return db
