"""An interval join of two topics through two kills of the TaskManager and two rescales.

The truth are all pairs of records that were not sent to the late topic, by DuckDB; no record within
the disorder is late.
"""

import time
import uuid
from collections import Counter

import duckdb_session
import pandas as pd
import pytest
from timed_stream import (
    DISORDER_MS,
    PARTITIONS,
    Event,
    TimedFeeder,
    events_of,
    through_faults,
    values_of,
)

import sage_flink as sage
from benchmark_sage.recovery.cluster import until
from sage_connectors import Json, kafka
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic
from sage_flink.common import Settings
from sage_flink.flow import FlinkOptions, Stream
from sage_flink.platform.flink_rest import FlinkRest

BEFORE_MS, AFTER_MS = 1_000, 3_000
KEYS, EVENTS_PER_S = 1_000, 750
SIDES = ("left", "right")


def job(name: str) -> sage.flow.Graph:
    def side(of: str) -> Stream:
        return (
            sage.flow.read(of, kafka(f"{name}.{of}", group=name, format=Json()))
            .event_time(f"{of}-time", field="at", out_of_order_s=DISORDER_MS / 1000)
            .key_by(f"{of}-by-user", "user")
        )

    pairs = side("left").join("pairs", side("right"), within_s=(BEFORE_MS / 1000, AFTER_MS / 1000))
    return sage.flow.pipeline(
        pairs.write("out", kafka(f"{name}.out", format=Json())),
        pairs.late("late").write("late-out", kafka(f"{name}.late", format=Json())),
    ).dead_letters_to(kafka(f"{name}.failed"))


@pytest.mark.full
def test_a_join_survives_kills_and_changes_of_parallelism(cluster, seed, full, keep):
    count = 50_000 if full else 15_000
    sides = [
        events_of(count, seed + number, keys=KEYS, prefix=of[0]) for number, of in enumerate(SIDES)
    ]

    found = run(cluster, sides)

    keep("interval_join", {"ids": 2 * count, **found})
    assert found["restarts"] >= 2
    assert found["lost"] == found["duplicated"] == found["wrong"] == found["failed"] == 0
    assert found["late_within_disorder"] == 0
    assert found["late"] > 0
    assert found["pairs"] > count // 10


def run(cluster, sides: list[list[Event]]) -> dict[str, int]:
    name = f"join{uuid.uuid4().hex[:8]}"
    topics = [f"{name}.{end}" for end in (*SIDES, "out", "late", "failed")]
    cluster.up()
    for topic in topics:
        ensure_topic(topic, PARTITIONS if topic in topics[:2] else 1)
    feeders = [
        TimedFeeder(topic, events, EVENTS_PER_S)
        for topic, events in zip(topics, sides, strict=False)
    ]
    with FlinkRest(Settings.load().flink_url) as rest:
        options = FlinkOptions(checkpoint_interval_s=1.0)
        job_id = sage.flow.submit(job(name), name=name, options=options)
        try:
            through_faults(cluster, rest, job_id, feeders)
            wait_until_quiet(topics[2:])
            return {**account(sides, topics), "restarts": rest.restarts(job_id)}
        finally:
            rest.cancel(job_id)
            for topic in topics:
                delete_topic(topic)


def wait_until_quiet(topics: list[str]) -> None:
    """Until for 10 s, ten checkpoints, nothing more is written."""

    def counts() -> list[int]:
        return [sum(1 for _ in drain(topic)) for topic in topics]

    seen, since = counts(), time.monotonic()

    def is_quiet() -> bool:
        nonlocal seen, since
        if (now := counts()) != seen:
            seen, since = now, time.monotonic()
        return time.monotonic() - since > 10

    until(is_quiet, 240, "the results", every_s=1.0)


def account(sides: list[list[Event]], topics: list[str]) -> dict[str, int]:
    """The pairs beside the truth, and which records were late."""
    pairs = Counter(
        (one["left"]["id"], one["right"]["id"])
        for one in values_of(topics[2])
        if "end" not in (one["left"]["id"], one["right"]["id"])
    )
    late = Counter(one["id"] for one in values_of(topics[3]))
    truth = set(pairs_of(*([one for one in events if one.id not in late] for events in sides)))
    by_id = {event.id: event for events in sides for event in events}
    return {
        "pairs": pairs.total(),
        "lost": len(truth - pairs.keys()),
        "duplicated": pairs.total() - len(pairs) + late.total() - len(late),
        "wrong": len(pairs.keys() - truth),
        "late": late.total(),
        "late_within_disorder": sum(not by_id[id_].late for id_ in late),
        "failed": sum(1 for _ in drain(topics[4])),
    }


def pairs_of(left: list[Event], right: list[Event]) -> list[tuple[str, str]]:
    with duckdb_session.session() as session:
        for name, events in (("l", left), ("r", right)):
            session.register(
                name,
                pd.DataFrame([(e.id, e.key, e.at) for e in events], columns=["id", "key", "at"]),
            )
        return session.execute(
            f"""SELECT l.id, r.id FROM l JOIN r ON l.key = r.key
            AND r.at BETWEEN l.at - {BEFORE_MS} AND l.at + {AFTER_MS}"""
        ).fetchall()
