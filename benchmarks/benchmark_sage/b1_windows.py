"""B1: windows over a topic, JSON in and JSON out: sums of 10 seconds for each of 10,000 keys.

``flink_sql`` is the limit: the same query, all of it in the JVM, in one phase as ``sage`` has it.
``sage`` is the pipeline as an author writes it; JSON is decoded and windows are kept in the JVM,
results are encoded in Python. ``sage_python`` has a function in Python in front of the windows.

The topics are filled before. Each side reads a short and a long one to the end; the difference of
the times that its source task ran is that of the difference of their records, without the start.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import sage_flink as sage
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.results import Headline, Result, result
from sage_connectors import Json, kafka
from sage_connectors.kafka_client import delete_topic, ensure_topic, feed
from sage_flink.common import Record, Settings
from sage_flink.flow import Count, Graph, Max, Min, Sum, Tumbling
from sage_flink.platform.flink_rest import ENDED, FlinkRest

KEYS, EVENTS_PER_S, WINDOW_S, DISORDER_S = 10_000, 10_000, 10, 2
FIRST_MS = 1_700_000_000_000
SHORT = 20_000
LIMIT_S = 300.0
#: Times that differ by less are those of the start.
APART_S = 1.0
Row = dict[str, Any]


def run(*, repeats: int, records: int = 500_000) -> Result:
    """Every side ``repeats`` times, interleaved, over ``records`` events."""
    topics = {count: f"b1-{uuid.uuid4().hex[:8]}" for count in (SHORT, SHORT + records)}
    pace = Pace([60.0] * repeats * len(SIDES))
    rows: dict[str, list[Row]] = {side: [] for side in SIDES}
    try:
        for count, topic in topics.items():
            ensure_topic(topic)
            feed(topic, events(count))
        for number in range(repeats):
            for side in SIDES:
                row = attempt(run_side, side, topics)
                rows[side].append(row)
                pace.report(f"repeat {number + 1}/{repeats}  {side:<12}", row)
    finally:
        for topic in topics.values():
            delete_topic(topic)
    return result("B1", seed=0, repeats=repeats, sides=dict(rows), headline=headline(rows))


def events(count: int) -> Iterator[tuple[bytes, bytes, None, int]]:
    """Events with keys in a fixed order, up to 2 s out of order; the last one ends all windows."""
    for number in range(count):
        behind_ms = number * 7919 % (DISORDER_S * 1000)
        at = FIRST_MS + number * 1000 // EVENTS_PER_S - behind_ms
        key = f"user-{number * 104_729 % KEYS}"
        value = {"user": key, "at": at, "price": number % 1000 / 8}
        yield key.encode(), json.dumps(value).encode(), None, at


def run_side(side: str, topics: dict[int, str]) -> Row:
    """Events a second of one side, from its times for the two topics."""
    (short, short_topic), (whole, whole_topic) = topics.items()
    start_s, whole_s = SIDES[side](short_topic), SIDES[side](whole_topic)
    if whole_s - start_s < APART_S:
        raise ValueError(f"{start_s:.2f} s and {whole_s:.2f} s are too near; take more --records")
    rate = round((whole - short) / (whole_s - start_s))
    return {"records_per_s": rate, "start_s": round(start_s, 2), "whole_s": round(whole_s, 2)}


def windows(topic: str, out: str, *, python: bool) -> Graph:
    """The pipeline of sage."""
    read: sage.flow.Stream = sage.flow.read("events", kafka(topic, bounded=True, format=Json()))
    if python:
        read = read.map("check_price", check_price)
    return (
        read.event_time("time", field="at", out_of_order_s=DISORDER_S)
        .key_by("by-user", "user")
        .window(
            "sums",
            Tumbling(WINDOW_S),
            {"n": Count(), "total": Sum("price"), "low": Min("price"), "high": Max("price")},
        )
        .write("out", kafka(out, format=Json()))
        .dead_letters_to(kafka(f"{out}.failed"))
    )


def check_price(record: Record) -> Any:
    """The value, looked at in Python."""
    return record.value if record.value["price"] >= 0 else None


def _options() -> sage.flow.FlinkOptions:
    return sage.flow.FlinkOptions(checkpoint_interval_s=5.0)


def _sage(topic: str, *, python: bool) -> float:
    name = f"b1-{uuid.uuid4().hex[:8]}"
    try:
        graph = windows(topic, name, python=python)
        return _source_s(sage.flow.submit(graph, name=name, options=_options()))
    finally:
        for end in (name, f"{name}.failed"):
            delete_topic(end)


def _flink_sql(topic: str) -> float:
    from benchmark_sage.peers.flink_sql import submit_sql  # loads PyFlink

    out = f"b1-{uuid.uuid4().hex[:8]}"
    ensure_topic(out)
    try:
        statements = _sql(topic, out, Settings.load().kafka_servers)
        return _source_s(submit_sql(statements, name=out, options=_options()))
    finally:
        delete_topic(out)


def _sql(topic: str, out: str, servers: str) -> tuple[str, str, str]:
    kafka_ = f"'connector' = 'kafka', 'properties.bootstrap.servers' = '{servers}'"
    return (
        f"""CREATE TABLE events (
            `user` STRING, `at` BIGINT, price DOUBLE, ts AS TO_TIMESTAMP_LTZ(`at`, 3),
            WATERMARK FOR ts AS ts - INTERVAL '{DISORDER_S}' SECOND
        ) WITH ({kafka_}, 'format' = 'json', 'topic' = '{topic}',
            'scan.startup.mode' = 'earliest-offset', 'scan.bounded.mode' = 'latest-offset')""",
        f"""CREATE TABLE sums (
            `key` STRING, start_at TIMESTAMP(3), n BIGINT, total DOUBLE, low DOUBLE, high DOUBLE
        ) WITH ({kafka_}, 'format' = 'json', 'topic' = '{out}',
            'sink.delivery-guarantee' = 'exactly-once',
            'sink.transactional-id-prefix' = '{out}')""",
        f"""INSERT INTO sums
            SELECT `user`, window_start, COUNT(*), SUM(price), MIN(price), MAX(price)
            FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(ts), INTERVAL '{WINDOW_S}' SECOND))
            GROUP BY `user`, window_start, window_end""",  # noqa: S608 - constants of this file
    )


def _source_s(job_id: str) -> float:
    """How long the first task of the job ran, when the job has ended."""
    with FlinkRest(Settings.load().flink_url) as rest:
        deadline = time.monotonic() + LIMIT_S
        while (state := rest.job(job_id).state) not in ENDED:
            if time.monotonic() > deadline:
                rest.cancel(job_id)
                raise TimeoutError(f"the job did not end in {LIMIT_S:g} s")
            time.sleep(0.5)
        if state != "FINISHED":
            raise RuntimeError(f"the job ended as {state}")
        return float(rest.vertices(job_id)[0]["duration"]) / 1000


#: The limit first; each takes a topic and returns the seconds of its source task.
SIDES: dict[str, Callable[[str], float]] = {
    "flink_sql": _flink_sql,
    "sage": partial(_sage, python=False),
    "sage_python": partial(_sage, python=True),
}


def headline(rows: dict[str, list[Row]]) -> list[Headline]:
    """Events a second over those of Flink SQL, in the same repeat."""
    found = []
    for side, named, floor in (("sage", "", 0.8), ("sage_python", ", a function in Python,", 0.1)):
        ratios = [
            ours["records_per_s"] / limit["records_per_s"]
            for ours, limit in zip(rows[side], rows["flink_sql"], strict=True)
            if "error" not in ours and "error" not in limit
        ]
        if ratios:
            metric = f"windowed sums by key{named} over Flink SQL"
            found.append(Headline.of(metric, ratios, unit="ratio", floor=floor, moonshot=1.0))
    return found
