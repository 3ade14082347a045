"""SQLite file of one process at a time, and the pages of its lists.

WAL with ``synchronous=NORMAL``: committed rows survive ``kill -9``; a power cut may lose the last
seconds. Synchronous; one thread calls it.
"""

import fcntl
import sqlite3
from collections.abc import Awaitable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sage_gateway.errors import NotFound

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListPage:
    """Which part of a list to return: ``limit`` items after the id ``after``."""

    after: str | None
    limit: int
    newest_first: bool = True


class ExclusiveDatabase:
    """The database at ``path`` (mode 0600) with the tables of ``schema``, and its lock.

    ``connection`` commits each statement by itself; ``with connection`` and ``BEGIN`` commit
    several.

    Raises:
        OSError: another process has it open, or the path cannot be written.
        sqlite3.Error: it cannot be opened.
    """

    def __init__(self, path: Path, schema: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock_path = path.with_suffix(".lock")
        for file in (path, lock_path):
            file.touch(mode=0o600)
        with ExitStack() as stack:
            lock = stack.enter_context(lock_path.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            stack.callback(self.connection.close)
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=NORMAL")
            self.connection.executescript(schema)
            self._stack = stack.pop_all()

    def close(self) -> None:
        """Close the file and release its lock."""
        self._stack.close()

    def page(
        self, table: str, columns: str, where: str, values: Sequence[object], page: ListPage
    ) -> list[tuple[Any, ...]]:
        """A page of the rows of ``table``, by ``seq``, and one more if the list continues.

        ``table``, ``columns`` and ``where`` are constants of the caller, never of a request.

        Raises:
            KeyError: the row ``page.after`` was deleted, or never existed.
        """
        if page.after is not None:
            query = f"SELECT seq FROM {table} WHERE id = ?"  # noqa: S608
            row = self.connection.execute(query, (page.after,)).fetchone()
            if row is None:
                raise KeyError(page.after)
            where += f" AND seq {'<' if page.newest_first else '>'} ?"
            values = [*values, row[0]]
        order = "DESC" if page.newest_first else "ASC"
        query = f"SELECT {columns} FROM {table} WHERE {where} ORDER BY seq {order} LIMIT ?"  # noqa: S608
        return self.connection.execute(query, [*values, page.limit + 1]).fetchall()


async def page_after(page: ListPage, found: Awaitable[list[T]]) -> list[T]:
    """``found``; an unknown start is an error, because an empty page would look like the end.

    Raises:
        NotFound: the item after which the page begins was deleted, or never existed.
    """
    try:
        return await found
    except KeyError as error:
        message = f"there is no {page.after!r:.80} any more; list from the start"
        raise NotFound(message, param="after") from error
