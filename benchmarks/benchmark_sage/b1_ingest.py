"""B1: JSON from Kafka to Kafka, as records a second and as records for a second of CPU time.

Four topologies: ``stateless`` (a filter and a projection), ``count`` (a running count for each of
10,000 keys), ``sums`` (count, sum, minimum and maximum of 10 seconds for each key) and ``join`` (of
two topics, by key and event time). ``flink_sql`` is the limit of what runs in the JVM: the same
query, aggregates in one phase as those of sage. ``sage`` is declared, ``sage_python`` has functions
in Python. ``pyflink`` is PyFlink's DataStream API with its defaults, ``pyflink_cached`` the same
with room for all keys in the caches of its workers. All sides on Flink have parallelism 1 and write
exactly once. ``quix`` and ``bytewax`` are one process each, with their defaults: at least once.

The topics are filled before. A run is measured from its first result to its last one, by the clock
of the broker, so the start of jobs and workers is not part of it (``start_s``). A slow side reads
fewer records (``records`` of its row). The results of every run are compared with those that a
loop in this process makes; a side with other results is a row with an error.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import msgspec
import psutil

from benchmark_sage import b1_workload as workload
from benchmark_sage.b1_headline import headline
from benchmark_sage.b1_sides import SIDES, IngestSide
from benchmark_sage.b1_workload import TOPOLOGIES, IngestWork, Topology
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.results import Result, result
from benchmark_sage.usage import Usage, cpu_at
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic, feed, topics
from sage_connectors.kafka_connection import client
from sage_flink.common import ConfigError, Record, Settings
from sage_flink.platform import stack

LIMIT_S = 600.0
#: Every side reads 10,000 records before its first window ends.
RECORDS_MIN = 12 * 15_000
#: One run, only for the estimate of time.
AROUND_S = 45.0
Row = dict[str, Any]


def run(*, repeats: int, records: int = 500_000, peers: Sequence[str] = tuple(SIDES)) -> Result:
    """Every side ``repeats`` times in each topology, interleaved, over ``records`` records.

    Raises:
        ConfigError: ``records`` are too few, so that a side would end with its first windows; or
            there is no such peer.
    """
    if unknown := set(peers) - set(SIDES):
        raise ConfigError(f"B1 has no peer {', '.join(sorted(unknown))}; it has {', '.join(SIDES)}")
    if records < RECORDS_MIN:
        raise ConfigError(f"B1 needs at least {RECORDS_MIN} --records, got {records}")
    sides = {name: side for name, side in SIDES.items() if name in {"sage", "sage_python", *peers}}
    rows: dict[str, dict[str, list[Row]]] = {
        side: {topology: [] for topology in TOPOLOGIES} for side in sides
    }
    pace = Pace([AROUND_S] * len(sides) * len(TOPOLOGIES) * repeats)
    with filled_topics(records) as prefix:
        for number in range(repeats):
            for topology in TOPOLOGIES:
                for name, side in sides.items():
                    row = attempt(run_side, side, topology, records, prefix)
                    rows[name][topology].append(row)
                    pace.report(f"repeat {number + 1}/{repeats}  {topology:<9}  {name:<11}", row)
    return result("B1", seed=0, repeats=repeats, sides=dict(rows), headline=headline(rows))


@contextmanager
def filled_topics(records: int) -> Iterator[str]:
    """The prefix of the input topics of all sizes; all topics with it are deleted at the end."""
    prefix = f"b1-{uuid.uuid4().hex[:8]}"
    try:
        for count in {records // side.divisor for side in SIDES.values()}:
            for topology in ("sums", "join"):
                for name, messages in workload.inputs(topology, count).items():
                    topic = _topic(prefix, name, count)
                    ensure_topic(topic)
                    keyed = ((m["user"].encode(), _json(m), None, m["at"]) for m in messages)
                    feed(topic, keyed)
        yield prefix
    finally:
        _delete_topics(prefix)


def run_side(side: IngestSide, topology: Topology, records: int, prefix: str) -> Row:
    """The figures of one run of one side.

    Raises:
        ValueError: its results are not those of the topology.
    """
    records //= side.divisor
    names = workload.inputs(topology, records)
    work = IngestWork(
        topology,
        tuple(_topic(prefix, name, records) for name in names),
        records,
        f"{prefix}-out-{uuid.uuid4().hex[:8]}",
        Settings.load().kafka_servers,
    )
    make_result_topic(work.out)
    try:
        began, usage = time.time(), _run(side, work)
        results = list(drain(work.out))
    finally:
        _delete_topics(work.out)
    _check(work, results)
    return figures(work, results, usage, began)


def _run(side: IngestSide, work: IngestWork) -> Usage:
    """The usage of the side's processes, when it has ended."""
    roots: list[psutil.Process] = []
    if side.on_flink:  # also of the time in which the job is submitted
        roots += stack.processes(Settings.load().home, "taskmanager")
    with Usage(roots) as usage:
        running = side.start(work)
        roots += running.processes
        try:
            running.wait(LIMIT_S)
        finally:
            running.stop()
    return usage


def _check(work: IngestWork, results: Sequence[Record]) -> None:
    decoded = (msgspec.json.decode(each.value) for each in results if each.value is not None)
    got, due = workload.summary(work.topology, decoded), _summary_of(work.topology, work.records)
    if got != due:
        raise ValueError(f"results of {work.topology} must be {due}, got {got}")


def figures(work: IngestWork, results: Sequence[Record], usage: Usage, began: float) -> Row:
    """Records a second, and for each second of CPU time, between the first and the last result."""
    times = [each.timestamp_ms / 1000 for each in results]
    first, last = min(times), max(times)
    read = work.records - workload.read_before_first_result(work.topology, work.records)
    cpu_s = cpu_at(usage.samples, last) - cpu_at(usage.samples, first)
    return {
        "records_per_s": round(read / (last - first)),
        "records_per_cpu_s": round(read / cpu_s),
        **usage.figures(first, last, read),
        "records": work.records,
        "written": len(results),
        "seconds": round(last - first, 2),
        "start_s": round(first - began, 2),
    }


def make_result_topic(topic: str) -> None:
    """Create the topic; its records get the time at which the broker appends them."""
    configs = {"message.timestamp.type": "LogAppendTime"}
    with client("KafkaAdminClient", "") as admin:
        admin.create_topics({topic: {"num_partitions": 1, "configs": configs}})
        admin.wait_for_topics([topic])


@cache
def _summary_of(topology: Topology, records: int) -> dict[str, float]:
    return workload.expected_summary(topology, records)


def _topic(prefix: str, name: str, records: int) -> str:
    return f"{prefix}-{name}-{records}"


def _json(message: workload.Message) -> bytes:
    return msgspec.json.encode(message)


def _delete_topics(prefix: str) -> None:
    for topic in topics():
        if prefix in topic:  # state of peers too, which has names around it
            with suppress(Exception):
                delete_topic(topic)
