"""Windows of a keyed stream through two kills of the TaskManager and two changes of parallelism.

Each result lists the ids that it counted, so every id can be found: once in one window of its own
key and time, or among the late records. A record within the disorder is never late.
"""

import time
import uuid
from collections import Counter

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
from sage_flink.flow import Collect, Count, FlinkOptions, Sum, Tumbling
from sage_flink.platform.flink_rest import FlinkRest

SIZE_MS, KEYS, EVENTS_PER_S = 10_000, 50, 1_500


def job(name: str, delivery) -> sage.flow.Graph:
    windows = (
        sage.flow.read("events", kafka(f"{name}.in", group=name, format=Json()))
        .event_time("time", field="at", out_of_order_s=DISORDER_MS / 1000)
        .key_by("by-user", "user")
        .window(
            "totals",
            Tumbling(SIZE_MS / 1000),
            {"n": Count(), "total": Sum("number"), "ids": Collect("id", items_max=100_000)},
        )
    )
    out = kafka(f"{name}.out", delivery=delivery, format=Json())
    late = kafka(f"{name}.late", delivery=delivery, format=Json())
    return sage.flow.pipeline(
        windows.write("out", out), windows.late("late").write("late-out", late)
    ).dead_letters_to(kafka(f"{name}.failed"))


@pytest.mark.full
def test_windows_survive_kills_and_changes_of_parallelism(request, cluster, seed, full, keep):
    count = 100_000 if full else 30_000
    found = run(cluster, events_of(count, seed, keys=KEYS), "exactly_once")

    keep("windows", {"ids": count, **found})
    assert found["restarts"] >= 2
    assert found["lost"] == found["duplicated"] == found["wrong"] == 0
    assert found["late_within_disorder"] == 0
    assert found["late"] > 0


def run(cluster, events: list[Event], delivery: str) -> dict[str, int]:
    name = f"windows{uuid.uuid4().hex[:8]}"
    topics = [f"{name}.{end}" for end in ("in", "out", "late", "failed")]
    cluster.up()
    for topic in topics:
        ensure_topic(topic, PARTITIONS if topic.endswith(".in") else 1)
    feeder = TimedFeeder(topics[0], events, EVENTS_PER_S)
    with FlinkRest(Settings.load().flink_url) as rest:
        options = FlinkOptions(checkpoint_interval_s=1.0)
        job_id = sage.flow.submit(job(name, delivery), name=name, options=options)
        try:
            through_faults(cluster, rest, job_id, [feeder])
            ids = {event.id for event in events}
            until(lambda: ids <= ended_ids(topics), 240, "an end of every event", every_s=1.0)
            time.sleep(3)  # a second result would be visible now
            return {**account(events, topics), "restarts": rest.restarts(job_id)}
        finally:
            rest.cancel(job_id)
            for topic in topics:
                delete_topic(topic)


def ended_ids(topics: list[str]) -> set[str]:
    windows, late = values_of(topics[1]), values_of(topics[2])
    return {id_ for result in windows for id_ in result["ids"]} | {one["id"] for one in late}


def account(events: list[Event], topics: list[str]) -> dict[str, int]:
    """Where each event ended."""
    by_id = {event.id: event for event in events}
    windows, late = values_of(topics[1]), values_of(topics[2])
    ends = Counter(id_ for result in windows for id_ in result["ids"])
    late_ids = Counter(one["id"] for one in late)
    wrong = [
        result
        for result in windows
        if result["n"] != len(result["ids"])
        or result["total"] != sum(int(id_[1:]) for id_ in result["ids"])
        or any(
            window_of(by_id[id_]) != (result["key"], result["start_ms"]) for id_ in result["ids"]
        )
    ]
    places = Counter((result["key"], result["start_ms"]) for result in windows)
    return {
        "lost": len(by_id.keys() - ends.keys() - late_ids.keys()),
        "duplicated": sum(n - 1 for n in (ends + late_ids).values())
        + (places.total() - len(places)),
        "wrong": len(wrong),
        "late": late_ids.total(),
        "late_within_disorder": sum(not by_id[id_].late for id_ in late_ids),
        "failed": len(list(drain(topics[3]))),
    }


def window_of(event: Event) -> tuple[str, int]:
    return event.key, event.at - event.at % SIZE_MS
