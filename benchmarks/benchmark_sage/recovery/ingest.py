"""Drill of ``rag_ingest``, submitted by the command of its users to the stack's own connections.

What is due follows from the documents by the job's own steps, run in this process: the chunks with
their texts, and the points of the telemetry. What is there is read from Milvus, the dead-letter
topic and InfluxDB.
"""

import asyncio
import contextlib
import random
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sage_flink as sage
from benchmark_sage.recovery.accounting import DeliveryCounts, SinkContents, count_deliveries
from benchmark_sage.recovery.cluster import Cluster, until
from benchmark_sage.recovery.drill import SETTLE_S
from benchmark_sage.recovery.feeder import Feeder, Message
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic
from sage_flink.common import Record, Settings
from sage_flink.common.dead_letters import from_message
from sage_flink.flow.graph import FlatMap
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.platform.flink_rest import ENDED, FlinkRest
from sage_flink.platform.job_accounting import job_balance
from sage_flink.tsdb.bucket import point_of
from sage_jobs import corpus, rag_ingest
from sage_jobs.rag_ingest import RagIngest

#: As many partitions as a topic has that the stack's broker makes.
PARTITIONS = 4
WAIT_S = 240.0
SENTENCE = "All is well with the machine in the hall. "
SENTENCES_MAX = 30


@dataclass(slots=True)
class RunningIngest:
    """The drill whose job reads its topic; ``printed``: the output of the job's submission."""

    cluster: Cluster
    name: str
    job_id: str
    rest: FlinkRest
    printed: str
    fed: list[str] = field(default_factory=list)

    @property
    def config(self) -> RagIngest:
        """The job's settings, with its name in them."""
        return config_of(self.name)


@dataclass(frozen=True, slots=True)
class ExpectedRows:
    """The text of each chunk by its id, and the identities of the points."""

    chunks: dict[str, str]
    points: frozenset[Any]


@dataclass(frozen=True, slots=True)
class IngestOutcome:
    """The result of one drill: chunks by id in Milvus and the dead-letter topic, and points.

    ``points``: (lost, of no chunk). ``dead_letters``: those that are of no chunk.
    ``is_accounted``: whether the job's own record counts are balanced.
    """

    documents: int
    chunks: DeliveryCounts
    points: tuple[int, int]
    dead_letters: Sequence[str]
    restarts: int
    is_accounted: bool

    def row(self) -> dict[str, Any]:
        """The drill's row in the result file."""
        return {
            **{name: getattr(self.chunks, name) for name in DeliveryCounts.__slots__},
            "documents": self.documents,
            "points_lost": self.points[0],
            "points_of_no_chunk": self.points[1],
            "restarts": self.restarts,
            "accounted": self.is_accounted,
        }


def config_of(name: str) -> RagIngest:
    """The settings of the job ``name``, as its options and defaults make them."""
    return RagIngest(
        topic=f"{name}.documents",
        collection=name,
        group=name,
        dead_letters=f"{name}.dead-letters",
    )


def documents(count: int, started_ms: int, prefix: str) -> Iterator[Message]:
    """``count`` documents of a chunk or two, a millisecond apart."""
    for number in range(count):
        document = {
            "id": f"{prefix}/{number:06d}",
            "title": f"Report {number}",
            "text": f"Report number {number}. " + SENTENCE * (number % SENTENCES_MAX),
            "modified_ms": started_ms + number,
        }
        key, value = corpus.message(document)
        yield key.decode(), value


def expected_rows(messages: Sequence[Message], config: RagIngest) -> ExpectedRows:
    """What the job has to write for the messages, from its own steps run in this process."""
    nodes = {node.name: node for node in rag_ingest.build(config).nodes}
    measure = nodes["measure"]
    assert isinstance(measure, FlatMap)
    split = sage.flow.Stream(tuple(nodes.values())[: list(nodes).index("split") + 1])
    points = split.flat_map("measure", measure.function).write("points", ListSink())
    graph = sage.flow.pipeline(split.write("chunks", ListSink()), points)
    rows = tuple(Record(key, value, key=key.encode()) for key, value in messages)
    outcome = asyncio.run(sage.flow.run(graph, sources={"documents": ListSource(rows)}))
    chunks = [record for record in outcome.written["chunks"] if record.kind != "delete"]
    return ExpectedRows(
        {record.id: record.value["text"] for record in chunks},
        frozenset(point_of(record).identity for record in outcome.written["points"]),
    )


def ingest_drill(
    cluster: Cluster,
    fault: Callable[[RunningIngest], None],
    *,
    count: int,
    rate_per_s: float,
    seed: int = 0,
    raw: Sequence[Message] = (),
    at_end: Callable[[RunningIngest], None] = lambda running: None,
) -> IngestOutcome:
    """Feed ``count`` documents, inject ``fault`` at a random moment, and count at the end.

    ``raw`` are messages that are no documents, and must each become one dead letter. ``at_end`` is
    called when all is written and counted, and the job still runs.
    """
    name = f"drill{uuid.uuid4().hex[:8]}"
    started_ms = int(time.time() * 1000)
    messages = list(documents(count, started_ms, name))
    expected = expected_rows(messages, config_of(name))
    chance = random.Random(seed)
    for message in raw:
        messages.insert(chance.randrange(1, len(messages)), message)
    ensure_topic(config_of(name).topic, PARTITIONS)
    ensure_topic(config_of(name).dead_letters)
    with FlinkRest(Settings.load().flink_url) as rest:
        running = submit(cluster, name, rest)
        try:
            until(lambda: rest.all_tasks_running(running.job_id), 120, "the job's tasks run")
            _run(running, messages, fault, len(expected.chunks), rate_per_s, chance)
            outcome = _outcome(running, expected, count, started_ms)
            at_end(running)
            return outcome
        finally:
            _clear(running)


def submit(cluster: Cluster, name: str, rest: FlinkRest) -> RunningIngest:
    """The job, submitted in a process of its own by ``sage jobs submit``."""
    command = [str(Path(sys.executable).with_name("sage")), "jobs", "submit", "rag_ingest"]
    config = config_of(name)
    options = ["--topic", config.topic, "--collection", config.collection, "--name", name]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    printed = done.stdout + done.stderr
    found = re.search(r"\b[0-9a-f]{32}\b", done.stdout)
    if found is None:
        raise RuntimeError(f"rag_ingest was not submitted: {printed}")
    return RunningIngest(cluster, name, found[0], rest, printed)


def _run(
    running: RunningIngest,
    messages: Sequence[Message],
    fault: Callable[[RunningIngest], None],
    chunks: int,
    rate_per_s: float,
    chance: random.Random,
) -> None:
    """Feed the messages, with the fault, and wait until the chunks are in Milvus."""
    config = running.config
    store = sage.db.collection(config.collection, dim=config.dim).open()
    try:
        feeder = Feeder(config.topic, messages, rate_per_s, fed=running.fed, finished=store.count)
        feeder.run(lambda: fault(running), chance)
        with contextlib.suppress(TimeoutError):  # the counts show what is missing
            until(lambda: store.count() >= chunks, WAIT_S, "all chunks", every_s=0.5)
        time.sleep(SETTLE_S)  # a duplicate would appear now
    finally:
        store.close()


def _outcome(
    running: RunningIngest, expected: ExpectedRows, count: int, started_ms: int
) -> IngestOutcome:
    balance = job_balance(running.rest, running.rest.job(running.job_id), wait_s=60)
    letters = [from_message(message) for message in drain(running.config.dead_letters)]
    dead = [letter.id for letter in letters if letter.id in expected.chunks]
    contents = SinkContents(_rows(running.config), dead)
    found = _points(running.config, started_ms, count, len(expected.points))
    return IngestOutcome(
        documents=count,
        chunks=count_deliveries(expected.chunks, contents),
        points=(len(expected.points - found), len(found - expected.points)),
        dead_letters=[f"{one.step}: {one.reason}" for one in letters if one.id not in dead],
        restarts=running.rest.restarts(running.job_id),
        is_accounted=balance.is_balanced,
    )


def _rows(config: RagIngest) -> dict[str, list[str]]:
    """The texts in Milvus by id, one for each row."""
    store = sage.db.collection(config.collection, dim=config.dim).open()
    rows: dict[str, list[str]] = {}
    try:
        for row in store.scan(vectors=False):
            rows.setdefault(row.id, []).append(row.fields["text"])
    finally:
        store.close()
    return rows


def _points(config: RagIngest, started_ms: int, count: int, due: int) -> frozenset[Any]:
    """The identities of the points of the documents' times, once ``due`` of them are there."""
    bucket = sage.tsdb.bucket(config.bucket).open()
    start_ns, stop_ns = started_ms * 10**6, (started_ms + count) * 10**6
    try:
        with contextlib.suppress(TimeoutError):
            until(lambda: bucket.count("chunks", start_ns) >= due, 60, "points", every_s=1)
        found = bucket.query("chunks", start_ns=start_ns, stop_ns=stop_ns, points_max=2 * due)
        return frozenset(point.identity for point in found)
    finally:
        bucket.close()


def _clear(running: RunningIngest) -> None:
    if running.rest.job(running.job_id).state not in ENDED:
        running.rest.cancel(running.job_id)
    for topic in (running.config.topic, running.config.dead_letters):
        delete_topic(topic)
