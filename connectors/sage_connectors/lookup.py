"""Lookup join: each record with the row of its key in a table elsewhere, for ``map_batches``.

The keys of a batch are read together, each once, and rows are cached, so a stream with 10,000 keys
and a cache of a minute reads 10,000 rows a minute at most. A row is as the table has it at that
moment, up to ``cache_s`` seconds old: a replay may join another one. Where a record needs the row
that was valid at its own time, ``temporal_join`` a changelog.

>>> import sage_flink as sage
>>> from sage_connectors import Json, kafka
>>> events = sage.flow.read("events", kafka("events", format=Json()))
>>> users = HttpTable("http://users.internal/v1/users/{key}")
>>> known = events.map_batches("user", Lookup(users, field="user_id", into="user"))
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from cachetools import TTLCache

from sage_connectors.tables import HttpTable, RedisTable
from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record, Refusal
from sage_flink.common.validation import require, require_name, require_whole_number
from sage_flink.common.values import require_field
from sage_flink.flow.ports import OpenContext


class TableReader(Protocol):
    """An open table. Called by one thread at a time."""

    def rows(self, keys: Sequence[str]) -> Mapping[str, Any]:
        """The row of each key that has one: anything that JSON can say.

        Raises:
            Retryable: the table cannot be read now; the step waits and tries again.
            Rejected: a key cannot be looked up; its records are dead letters.
        """

    def close(self) -> None:
        """Close the client."""


@runtime_checkable
class Table(Protocol):
    """The spec of a table that is read by key."""

    def reader(self) -> TableReader:
        """Open it where this is called.

        Raises:
            ConfigError: it cannot be opened as the spec asks.
        """


@dataclass
class Lookup:
    """For ``map_batches``: the value with the row of ``table`` for its ``field``, as ``into``.

    A record whose key has no row, or that has no key, gets None, or is a dead letter. That a key
    has no row is cached as a row is, each for ``cache_s`` seconds and at most ``cache_rows_max`` of
    them, the least recently used one dropped first.
    """

    table: HttpTable | RedisTable | Table
    field: str
    into: str
    missing: Literal["null", "dead_letter"] = "null"
    cache_s: float = 60.0
    cache_rows_max: int = 100_000
    _reader: TableReader | None = dataclasses.field(
        default=None, init=False, repr=False, compare=False
    )
    _cache: TTLCache[str, Any] | None = dataclasses.field(
        default=None, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        known = isinstance(self.table, Table) and not isinstance(self.table, type)
        require(known, "lookup", "table", "a table such as HttpTable(...)", self.table)
        for name in ("field", "into"):
            require_name("lookup", name, getattr(self, name))
        ways = ("null", "dead_letter")
        require(self.missing in ways, "lookup", "missing", "null or dead_letter", self.missing)
        number = isinstance(self.cache_s, int | float) and self.cache_s > 0
        require(number, "lookup", "cache_s", "more than 0 seconds", self.cache_s)
        require_whole_number("lookup", "cache_rows_max", self.cache_rows_max)

    def open(self, context: OpenContext) -> None:
        """Open the table; the cache is empty."""
        self._reader = self.table.reader()
        self._cache = TTLCache(self.cache_rows_max, self.cache_s)

    def close(self) -> None:
        """Close the table."""
        if self._reader is not None:
            self._reader.close()

    def __call__(self, records: Sequence[Record]) -> list[dict[str, Any] | Refusal]:
        """The values with their rows.

        Raises:
            Retryable: the table cannot be read now.
            Rejected: a key of the batch cannot be looked up.
        """
        keys = [_key(record, self.field) for record in records]
        rows = self._rows({key for key in keys if isinstance(key, str)})
        return list(self._join_rows(records, keys, rows))

    def _rows(self, keys: set[str]) -> dict[str, Any]:
        """The row of each key, None where there is none."""
        assert self._reader is not None
        assert self._cache is not None
        rows = {key: self._cache[key] for key in keys if key in self._cache}
        if wanted := sorted(keys - rows.keys()):
            found = self._reader.rows(wanted)
            read = {key: found.get(key) for key in wanted}
            self._cache.update(read)
            rows |= read
        return rows

    def _join_rows(
        self, records: Sequence[Record], keys: Sequence[str | Refusal | None], rows: dict[str, Any]
    ) -> Iterator[dict[str, Any] | Refusal]:
        for record, key in zip(records, keys, strict=True):
            if isinstance(key, Refusal):
                yield key
                continue
            row = None if key is None else rows[key]
            if row is None and self.missing == "dead_letter":
                why = f"field {self.field!r} is null" if key is None else f"no row for {key!r:.100}"
                yield Refusal(record, why)
            else:
                yield {**record.value, self.into: row}


def _key(record: Record, name: str) -> str | Refusal | None:
    """The key: text, or a whole number as text."""
    try:
        key = require_field(record, name, object)
    except Rejected as flaw:
        return Refusal(record, str(flaw))
    if key is None or isinstance(key, str):
        return key
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    return Refusal(record, f"field {name!r} must be text or a whole number, got {key!r:.100}")
