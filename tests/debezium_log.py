"""A log of a table's changes as Debezium writes it, and the table at its end.

The envelope is that of Debezium's documentation: a snapshot, then inserts, updates and deletes with
their tombstones, keys changed and rows inserted again, and messages that are about no row.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sage_flink.common import Record

WORDS = ("oak", "elm", "ash", "yew", "fir", "pine", "lime", "alder")
SNAPSHOT_SHARE = 0.1


@dataclass
class ChangeLog:
    """``messages`` are (key, value) in the order of one partition; ``table`` maps id to row."""

    messages: list[tuple[bytes, bytes | None]] = field(default_factory=list)
    table: dict[str, dict[str, Any]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def records(self, topic: str = "shop.public.trees") -> Iterator[Record]:
        """The messages as a source of the topic reads them."""
        for offset, (key, value) in enumerate(self.messages):
            place = f"{topic}/0/{offset}"
            yield Record(place, value, offset, key, {}, place)


def change_log(
    changes: int = 5_000, *, updates: float = 0.3, deletes: float = 0.1, seed: int = 1
) -> ChangeLog:
    """A log with this many changes; the rest of them are inserts, the first ones of a snapshot."""
    made = _Maker(random.Random(seed))
    for number in range(changes):
        share = made.random.random()
        if number < changes * SNAPSHOT_SHARE or not made.log.table:
            made.insert("r" if number < changes * SNAPSHOT_SHARE else "c")
        elif share < deletes / (1 - SNAPSHOT_SHARE):
            made.delete()
        elif share < (deletes + updates) / (1 - SNAPSHOT_SHARE):
            made.update()
        else:
            made.insert("c")
        if number % 500 == 250:
            made.about_no_row(number)
    return made.log


class _Maker:
    def __init__(self, random_: random.Random) -> None:
        self.random, self.log, self.next_id = random_, ChangeLog(), 1
        self.deleted: list[str] = []

    def insert(self, op: str) -> None:
        again = op == "c" and self.deleted and self.random.random() < 0.03
        if again:
            id_ = self.deleted.pop(self.random.randrange(len(self.deleted)))
        else:
            id_, self.next_id = str(self.next_id), self.next_id + 1
        row = self.row(id_)
        self.log.table[id_] = row
        self.change(op, id_, None, row)

    def update(self) -> None:
        id_ = self.random.choice(list(self.log.table))
        before, row = self.log.table[id_], self.row(id_)
        self.log.table[id_] = row
        self.change("u", id_, before, row)

    def delete(self) -> None:
        id_ = self.random.choice(list(self.log.table))
        self.change("d", id_, self.log.table.pop(id_), None)
        self.log.messages.append((self.key(id_), None))
        self.deleted.append(id_)

    def row(self, id_: str) -> dict[str, Any]:
        text = " ".join(self.random.choices(WORDS, k=self.random.randint(3, 12)))
        return {"id": int(id_), "title": f"tree {id_}", "body": f"{text} {self.random.random()}"}

    def key(self, id_: str) -> bytes:
        return json.dumps({"id": int(id_)}).encode()

    def change(self, op: str, id_: str, before: Any, after: Any) -> None:
        at_ms = 1_700_000_000_000 + len(self.log.messages)
        source = {
            "version": "2.7.3.Final",
            "connector": "postgresql",
            "name": "shop",
            "ts_ms": at_ms,
            "snapshot": "true" if op == "r" else "false",
            "db": "shop",
            "schema": "public",
            "table": "trees",
            "txId": len(self.log.messages),
            "lsn": 24_023_128 + len(self.log.messages),
        }
        envelope = {
            "before": before,
            "after": after,
            "source": source,
            "op": op,
            "ts_ms": at_ms + 12,
            "transaction": None,
        }
        self.log.messages.append((self.key(id_), json.dumps(envelope).encode()))
        self.log.counts[op] = self.log.counts.get(op, 0) + 1

    def about_no_row(self, number: int) -> None:
        schema = {"source": {}, "databaseName": "shop", "ddl": "ALTER TABLE trees ADD x int"}
        heartbeat = {"ts_ms": 1_700_000_000_000 + number}
        begin = {"status": "BEGIN", "id": f"{number}", "ts_ms": number, "event_count": None}
        for key, value in (
            ({"databaseName": "shop"}, schema),
            ({"serverName": "shop"}, heartbeat),
            ({"id": f"{number}"}, begin),
        ):
            self.log.messages.append((json.dumps(key).encode(), json.dumps(value).encode()))
