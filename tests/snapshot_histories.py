"""A random history of a job that writes documents, and what a reader has to see: its truth.

The job reads a fixed stream of records; a checkpoint is a position in it. A crash takes the job
back to the newest complete checkpoint, whether or not the writer was notified of it.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sage_flink.common import Record
from sage_flink.db import Collection
from sage_flink.db.snapshot_reads import SnapshotReads
from sage_flink.db.snapshot_writer import SnapshotWriter
from sage_flink.db.vectors import pack

Rows = dict[str, dict[str, Any]]
#: Event time of a position.
FIRST_MS, STEP_MS = 1_700_000_000_000, 1000


def chunk(doc: str, version: str, number: int, dim: int, text: str = "") -> Record:
    vector = pack([1.0, float(number), *[0.5] * (dim - 2)])
    fields = {"doc": doc, "version": version, "text": text or f"{doc} {version} {number}"}
    return Record(f"{doc}/{number}", {"vector": vector, **fields})


def end(doc: str, version: str) -> Record:
    return Record(f"{doc}/end", None).delete_of(doc, version=version, id=f"{doc}/end")


def document(doc: str, version: str, chunks: int, dim: int, text: str = "") -> list[Record]:
    """The records of one version, as ``chunk`` makes them; of an empty one its delete alone."""
    return [*(chunk(doc, version, n, dim, text) for n in range(chunks)), end(doc, version)]


def random_stream(chance: random.Random, versions: int, dim: int) -> list[Record]:
    """Versions of a few documents, each in order, their records mixed; and rows of no document."""
    queues: dict[str, list[Record]] = {}
    for number in range(versions):
        doc = chance.choice("abc")
        again = chance.randrange(max(1, number - 3), number + 1) if number else 0
        made = document(doc, f"v{again}", chance.randrange(4), dim, f"text {number}")
        if chance.random() < 0.15:
            made = [end(doc, "")]
        if chance.random() < 0.2:
            alone = {"vector": pack([1.0] * dim), "text": f"alone {number}"}
            made.append(Record(f"alone{number % 2}", alone))
        queues.setdefault(doc, []).extend(made)
    stream = []
    while queues:
        doc = chance.choice(sorted(queues))
        stream.append(queues[doc].pop(0))
        if not queues[doc]:
            del queues[doc]
    return stream


def truth(stream: Sequence[Record]) -> Rows:
    """The fields of the rows of the documents that the stream has ended, by id."""
    shown: Rows = {}
    pending: dict[str, Rows] = {}
    for record in stream:
        if record.kind == "delete":
            doc, kept = record.document, record.version
            old = [id_ for id_, row in shown.items() if row.get("doc") == doc]
            for id_ in old:
                if not kept or shown[id_]["version"] != kept:
                    del shown[id_]
            ended = pending.pop(doc, {})
            shown |= {id_: row for id_, row in ended.items() if kept and row["version"] == kept}
            continue
        row = {name: value for name, value in record.value.items() if name != "vector"}
        (pending.setdefault(row["doc"], {}) if "doc" in row else shown)[record.id] = row
    return shown


def rows_of(reads: SnapshotReads) -> Rows:
    found = [(row.id, row.fields) for row in reads.scan(vectors=False)]
    assert len(found) == len(dict(found)), "a row is there twice"
    return dict(found)


@dataclass
class WriteHistory:
    """A job that reads ``stream`` into ``spec``, action by action."""

    spec: Collection
    stream: list[Record]
    base: int = 1_000_000
    position: int = 0
    checkpoint: int = 0
    complete: int = 0
    positions: dict[int, int] = field(default_factory=lambda: {0: 0})
    #: Checkpoint by commit, in order.
    commits: list[int] = field(default_factory=list)
    writer: SnapshotWriter | None = None

    def start(self) -> None:
        """Start the job, or restart it from its newest complete checkpoint."""
        if self.writer is not None:
            self.writer.close()
        writer = self.spec.writer()
        assert isinstance(writer, SnapshotWriter)
        self.writer, self.position = writer, self.positions[self.complete]
        is_fresh = self.complete == 0
        self.base += is_fresh
        writer.restore(self.base + self.complete, is_fresh=is_fresh, ends_documents=True)

    def write(self, count: int) -> None:
        assert self.writer is not None
        batch = self.stream[self.position : self.position + count]
        assert not (batch and self.writer.write(batch))
        self.position += len(batch)

    def take_checkpoint(self, *, is_complete: bool = True, is_notified: bool = True) -> None:
        assert self.writer is not None
        self.checkpoint += 1
        self.writer.end_epoch(self.base + self.checkpoint)
        self.positions[self.checkpoint] = self.position
        if is_complete:
            self.complete = self.checkpoint
        if is_complete and is_notified:
            self.commit()

    def commit(self) -> None:
        assert self.writer is not None
        watermark_ms = FIRST_MS + STEP_MS * self.complete
        self.writer.commit(self.base + self.complete, watermark_ms)
        self.commits.append(self.complete)
        self.writer.rows.store.count([""])  # waits until every read finds the marker

    def expected(self, checkpoint: int | None = None) -> Rows:
        """What a reader sees now, or as of the commit of ``checkpoint``."""
        newest = self.commits[-1] if self.commits else 0
        return truth(self.stream[: self.positions[newest if checkpoint is None else checkpoint]])

    def act(self, chance: random.Random, weights: Mapping[str, int]) -> None:
        """One random action."""
        match chance.choices(list(weights), list(weights.values()))[0]:
            case "write":
                self.write(chance.randrange(1, 6))
            case "checkpoint":
                self.take_checkpoint()
            case "aborted":
                self.take_checkpoint(is_complete=False)
            case "missed":
                self.take_checkpoint(is_notified=False)
            case "crash":
                self.start()


ACTIONS = {"write": 8, "checkpoint": 3, "aborted": 1, "missed": 1, "crash": 1}
