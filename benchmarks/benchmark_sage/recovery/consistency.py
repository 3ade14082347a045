"""Drill of reads during ingest: documents are updated, the TaskManager is killed, readers compare.

::

    Kafka -> decode -> split -> embed (mock engine) -> collection, with snapshots or without

Update number n is a new version of some document, n is the version, and each of its chunks names
the number of all of them. So a reader knows from the rows alone whether a document is torn (chunks
of two versions, or in a read by filter not all of one) and whether a row has vanished (an older
version than it has seen, or no row: no document is ever deleted). By the versions a whole
collection belongs to one prefix of the updates.

Reads by filter are exact. A search is not: Milvus 2.3 searches an eighth of the clusters of a
segment that still grows, so of few matching rows it finds an eighth. It counts by what it finds.
Both sides read without waiting for the server's tick.
"""

import contextlib
import itertools
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

import sage_flink as sage
from benchmark_sage.recovery.cluster import Cluster, until
from benchmark_sage.recovery.workload import DIM, FIRST_MS
from sage_connectors import kafka
from sage_connectors.kafka_client import delete_topic, ensure_topic, feed
from sage_flink.common import Record, Settings
from sage_flink.db import SearchHit, VectorRow, VectorStore
from sage_flink.db.fields import field as field_of
from sage_flink.db.snapshot_reads import SnapshotReads
from sage_flink.operators import DecodeDocument
from sage_flink.platform.flink_rest import ENDED, FlinkRest

DOCUMENTS, CHUNKS_MAX, STEP_MS = 150, 6, 1_000
READERS, READ_DOCUMENTS, KILLS = 3, 3, 3
CHECKPOINT_S, WARM_S, WAIT_S, READS_S = 2.0, 120.0, 240.0, 1800.0
#: Every so many reads of a reader are one of all rows by a scan.
SCAN_EVERY = 200


@dataclass(frozen=True, slots=True)
class SplitLines:
    """A document's lines as its chunks, then the delete of its other versions."""

    emits_deletes = True

    def __call__(self, record: Record) -> Iterable[Record]:
        """The chunks and the delete."""
        doc, lines = record.value["doc"], record.value["text"].splitlines()
        version = lines[0]
        for ordinal, _ in enumerate(lines[1:]):
            fields = {"doc": doc, "version": version, "ordinal": ordinal, "of": len(lines) - 1}
            text = f"{doc} {version} {ordinal}"
            yield record.child("split", ordinal, {**fields, "text": text})
        yield record.delete_of(doc, version=version, id=f"{record.id}/end")


@dataclass(slots=True)
class ReadCounts:
    """Reads of all readers, and how many of them found a torn document or missed a row."""

    reads: int = 0
    torn: int = 0
    vanished: int = 0
    examples: list[str] = field(default_factory=list)


def document_of(number: int) -> str:
    """The document that the update changes; equal numbers give equal ones."""
    return f"doc{random.Random(number).randrange(DOCUMENTS):03d}"


def chunks_of(number: int) -> int:
    """How many chunks the version has."""
    return 1 + random.Random(-1 - number).randrange(CHUNKS_MAX)


def message(number: int) -> tuple[bytes, bytes, None, int]:
    """The update as a message of the topic."""
    doc, lines = document_of(number), [str(number), *"x" * chunks_of(number)]
    event = {"id": doc, "text": "\n".join(lines), "modified_ms": FIRST_MS + number * STEP_MS}
    return doc.encode(), msgspec.json.encode(event), None, FIRST_MS + number


def rows_at(updates: int) -> set[tuple[str, str, int]]:
    """Document, version and ordinal of each row after so many updates: the replayed truth."""
    newest = {document_of(number): number for number in range(updates)}
    return {
        (doc, str(number), ordinal)
        for doc, number in newest.items()
        for ordinal in range(chunks_of(number))
    }


def rows_in(rows: Iterable[VectorRow]) -> set[tuple[str, str, int]]:
    """The same of the rows of a collection."""
    return {(row.fields["doc"], row.fields["version"], row.fields["ordinal"]) for row in rows}


def build(name: str, *, snapshots: bool) -> sage.flow.Graph:
    """The job's graph."""
    return (
        sage.flow.read("documents", kafka(name, group=name))
        .flat_map("decode", DecodeDocument())
        .event_time("time", out_of_order_s=0)
        .flat_map("split", SplitLines())
        .call("embed", sage.embed(model="mock-embed"), capacity=16, timeout_s=60)
        .write("vectors", sage.db.collection(name, dim=DIM, snapshots=snapshots))
        .dead_letters_to(kafka(f"{name}.dead-letters"))
    )


class ConsistencyReader(threading.Thread):
    """Reads documents until it is stopped, and compares each with what it has seen before."""

    def __init__(self, name: str, seed: int, counts: ReadCounts, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._collection = sage.db.collection(name, dim=DIM)
        self._chance, self._counts, self._stop_event = random.Random(seed), counts, stop
        self._seen: dict[str, int] = {}

    def run(self) -> None:
        """Read."""
        store = self._collection.open()
        store.waits = False  # type: ignore[attr-defined]
        for number in itertools.count(1):
            if self._stop_event.is_set():
                break
            docs = sorted({self._document() for _ in range(READ_DOCUMENTS)})
            where = field_of("doc").in_(docs)
            if number % SCAN_EVERY == 0:
                self._compare(sorted(self._seen), list(store.scan(vectors=False)))
            elif number % 2:
                self._compare(docs, list(store.scan(where, vectors=False)))
            else:
                query = [self._chance.gauss(0, 1) for _ in range(DIM)]
                hits = store.search(query, 64, where=where)
                self._compare([], hits, is_exact=False)
        store.close()

    def _document(self) -> str:
        return f"doc{self._chance.randrange(DOCUMENTS):03d}"

    def _compare(
        self, docs: Sequence[str], found: Sequence[SearchHit | VectorRow], *, is_exact: bool = True
    ) -> None:
        rows: dict[str, list[dict[str, Any]]] = {doc: [] for doc in docs}
        for row in found:
            rows.setdefault(row.fields["doc"], []).append(row.fields)
        torn = [doc for doc, chunks in rows.items() if _is_torn(chunks, is_exact)]
        vanished = [doc for doc, chunks in rows.items() if self._has_vanished(doc, chunks)]
        self._counts.reads += 1
        self._counts.torn += len(torn)
        self._counts.vanished += len(vanished)
        for doc in (*torn, *vanished):
            if len(self._counts.examples) < 10:
                chunks = sorted((row["version"], row["ordinal"], row["of"]) for row in rows[doc])
                self._counts.examples.append(f"{doc} after {self._seen.get(doc)}: {chunks}")

    def _has_vanished(self, doc: str, chunks: Sequence[dict[str, Any]]) -> bool:
        newest = max((int(row["version"]) for row in chunks), default=-1)
        before = self._seen.get(doc, -1)
        self._seen[doc] = max(before, newest)
        return newest < before


def _is_torn(chunks: Sequence[dict[str, Any]], is_exact: bool) -> bool:
    found = {(row["version"], row["of"]) for row in chunks}
    is_part = is_exact and any(of != len(chunks) for _, of in found)
    return is_part or len(found) > 1


@dataclass(slots=True)
class ConsistencyRun:
    """One side of the drill: updates at ``rate_per_s`` until readers have made so many reads.

    The TaskManager is killed after each quarter of them, when the job runs again.
    """

    cluster: Cluster
    snapshots: bool
    reads_least: int
    rate_per_s: float = 15.0
    seed: int = 0
    updates: int = 0
    name: str = field(default_factory=lambda: f"consistency{uuid.uuid4().hex[:8]}")
    counts: ReadCounts = field(default_factory=ReadCounts)

    def run(self, times: int = 0) -> dict[str, Any]:
        """Ingest with kills and readers; then ``times`` random reads as of an event time."""
        for topic in (self.name, f"{self.name}.dead-letters"):
            ensure_topic(topic)
        options = sage.flow.FlinkOptions(checkpoint_interval_s=CHECKPOINT_S)
        graph = build(self.name, snapshots=self.snapshots)
        with FlinkRest(Settings.load().flink_url) as rest:
            job_id = sage.flow.submit(graph, name=self.name, options=options)
            try:
                until(lambda: rest.all_tasks_running(job_id), WARM_S, "the job's tasks run")
                self._ingest(lambda: self.cluster.kill_taskmanager(rest, job_id))
                return self._row(rest.restarts(job_id), times)
            finally:
                if rest.job(job_id).state not in ENDED:
                    rest.cancel(job_id)
                delete_topic(self.name)

    def open(self) -> VectorStore:
        """The collection."""
        return sage.db.collection(self.name, dim=DIM).open()

    def _ingest(self, kill: Callable[[], None]) -> None:
        stop = threading.Event()
        readers = [
            ConsistencyReader(self.name, self.seed + n, self.counts, stop) for n in range(READERS)
        ]
        feeder = threading.Thread(target=lambda: feed(self.name, self._messages()), daemon=True)
        for thread in (*readers, feeder):
            thread.start()
        for number in range(1, KILLS + 1):
            share = self.reads_least * number / (KILLS + 1)
            until(lambda least=share: self.counts.reads >= least, READS_S, "the reads")  # type: ignore[misc]
            kill()
            print(f"{self.name}: kill {number}, {self.counts.reads} reads", flush=True)
        feeder.join(READS_S)
        with contextlib.closing(self.open()) as store:
            due = rows_at(self.updates)
            until(lambda: rows_in(store.scan(vectors=False)) == due, WAIT_S, "all rows", every_s=1)
        stop.set()
        for reader in readers:
            reader.join(60)

    def _messages(self) -> Iterator[Any]:
        began_s = time.monotonic()
        for number in itertools.count():
            if self.counts.reads >= self.reads_least:
                return
            time.sleep(max(0.0, began_s + number / self.rate_per_s - time.monotonic()))
            self.updates = number + 1
            yield message(number)

    def _row(self, restarts: int, times: int) -> dict[str, Any]:
        wrong = self._wrong_times(times) if self.snapshots else []
        with contextlib.closing(self.open()) as store:
            row = {
                "snapshots": self.snapshots,
                "updates": self.updates,
                "reads": self.counts.reads,
                "torn": self.counts.torn,
                "vanished": self.counts.vanished,
                "restarts": restarts,
                "as_of": times if self.snapshots else 0,
                "as_of_wrong": len(wrong),
                "examples": [*self.counts.examples, *wrong[:5]],
            }
            store.drop()  # type: ignore[attr-defined]
        return row

    def _wrong_times(self, times: int) -> list[str]:
        """Random times with rows that are not those of a prefix of the updates, or of a short one.

        A snapshot has all updates up to its watermark, and may have later ones.
        """
        chance, wrong = random.Random(self.seed), []
        with contextlib.closing(self.open()) as store:
            assert isinstance(store, SnapshotReads)
            marks = [one for one in store.history() if one.watermark_ms is not None]
            first_ms, last_ms = marks[0].time_ms, FIRST_MS + self.updates * STEP_MS
            for _ in range(times):
                at_ms = chance.randrange(first_ms, last_ms)
                found = rows_in(store.as_of(at_ms).scan(vectors=False))
                updates = 1 + max((int(version) for _, version, _ in found), default=-1)
                sure_ms = max(one.time_ms for one in marks if one.time_ms <= at_ms)
                least = max(0, (sure_ms - FIRST_MS) // STEP_MS + 1)
                if found != rows_at(updates) or updates < least:
                    wrong.append(f"as of {at_ms}: {updates} updates, at least {least}")
        return wrong
