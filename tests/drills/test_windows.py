"""Windows of a keyed stream through two kills of the TaskManager and two changes of parallelism.

Each result lists the ids that it counted, so every id can be found: once in one window of its own
key and time, or among the late records. A record within the disorder is never late.
"""

import json
import random
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass

import pytest

import sage_flink as sage
from benchmark_sage.recovery.cluster import until
from sage_connectors import Json, kafka
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic, feed
from sage_flink.common import Settings
from sage_flink.flow import Collect, Count, FlinkOptions, Sum, Tumbling
from sage_flink.platform.flink_rest import FlinkRest

FIRST_MS = 1_700_000_000_000
STEP_MS, SIZE_MS, DISORDER_MS = 5, 10_000, 2_000
PARTITIONS, KEYS = 4, 50
IDS_PER_S = 1_500


@dataclass(frozen=True)
class Event:
    """An event; ``late``: its windows are over when it comes."""

    id: str
    key: str
    at: int
    late: bool

    @property
    def window(self) -> tuple[str, int]:
        return self.key, self.at - self.at % SIZE_MS


def events_of(count: int, seed: int) -> list[Event]:
    rand = random.Random(seed)
    made = []
    for number in range(count):
        late = number > count // 5 and rand.random() < 0.2
        behind = rand.randrange(30_000, 60_000) if late else rand.randrange(DISORDER_MS)
        key = f"user-{rand.randrange(KEYS)}"
        made.append(Event(f"e{number}", key, FIRST_MS + number * STEP_MS - behind, late))
    return made


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


class Feeder(threading.Thread):
    """Feeds the events at their rate, then one for each partition that ends all windows."""

    def __init__(self, topic: str, events: list[Event]) -> None:
        super().__init__(daemon=True)
        self.topic, self.events, self.fed = topic, events, 0

    def run(self) -> None:
        feed(self.topic, self._messages())

    def _messages(self):
        began = time.monotonic()
        for event in self.events:
            time.sleep(max(0.0, began + self.fed / IDS_PER_S - time.monotonic()))
            yield message(event, number=int(event.id[1:]))
            self.fed += 1
        end_ms = FIRST_MS + len(self.events) * STEP_MS + 10 * SIZE_MS
        for number in range(20 * PARTITIONS):
            yield message(Event("end", f"end-{number}", end_ms, late=False), number=0)

    def wait(self, share: float) -> None:
        until(lambda: self.fed >= share * len(self.events), 600, "the stream flows")


def message(event: Event, number: int):
    value = {"id": event.id, "user": event.key, "at": event.at, "number": number}
    return event.key.encode(), json.dumps(value).encode()


@pytest.mark.full
def test_windows_survive_kills_and_changes_of_parallelism(request, cluster, seed, full, keep):
    count = 100_000 if full else 30_000
    found = run(cluster, events_of(count, seed), "exactly_once")

    keep("windows", {"ids": count, **found})
    assert found["restarts"] >= 2
    assert found["lost"] == found["twice"] == found["wrong"] == 0
    assert found["late_within_disorder"] == 0
    assert found["late"] > 0


def run(cluster, events: list[Event], delivery: str) -> dict[str, int]:
    name = f"windows{uuid.uuid4().hex[:8]}"
    topics = [f"{name}.{end}" for end in ("in", "out", "late", "failed")]
    cluster.up()
    for topic in topics:
        ensure_topic(topic, PARTITIONS if topic.endswith(".in") else 1)
    feeder = Feeder(topics[0], events)
    with FlinkRest(Settings.load().flink_url) as rest:
        options = FlinkOptions(checkpoint_interval_s=1.0)
        job_id = sage.flow.submit(job(name, delivery), name=name, options=options)
        try:
            until(lambda: rest.all_tasks_running(job_id), 120, "the job's tasks run")
            feeder.start()
            for share, fault in (
                (0.2, lambda: kill(cluster, rest, job_id)),
                (0.4, lambda: rest.rescale(job_id, 4)),
                (0.6, lambda: kill(cluster, rest, job_id)),
                (0.8, lambda: rest.rescale(job_id, 2)),
            ):
                feeder.wait(share)
                fault()
            feeder.join(600)
            ids = {event.id for event in events}
            until(lambda: ids <= ended_ids(topics), 240, "an end of every event", every_s=1.0)
            time.sleep(3)  # a second result would be visible now
            return {**account(events, topics), "restarts": rest.restarts(job_id)}
        finally:
            rest.cancel(job_id)
            for topic in topics:
                delete_topic(topic)


def kill(cluster, rest: FlinkRest, job_id: str) -> None:
    cluster.kill("taskmanager", "java")
    until(lambda: not rest.all_tasks_running(job_id), 120, "the job notices", every_s=0.1)
    until(lambda: rest.all_tasks_running(job_id), 120, "the job's tasks run again")


def results(topic: str) -> list[dict]:
    return [json.loads(record.value) for record in drain(topic)]


def ended_ids(topics: list[str]) -> set[str]:
    windows, late = results(topics[1]), results(topics[2])
    return {id_ for result in windows for id_ in result["ids"]} | {one["id"] for one in late}


def account(events: list[Event], topics: list[str]) -> dict[str, int]:
    """Where each event ended."""
    by_id = {event.id: event for event in events}
    windows, late = results(topics[1]), results(topics[2])
    ends = Counter(id_ for result in windows for id_ in result["ids"])
    late_ids = Counter(one["id"] for one in late)
    wrong = [
        result
        for result in windows
        if result["n"] != len(result["ids"])
        or result["total"] != sum(int(id_[1:]) for id_ in result["ids"])
        or any(by_id[id_].window != (result["key"], result["start_ms"]) for id_ in result["ids"])
    ]
    places = Counter((result["key"], result["start_ms"]) for result in windows)
    return {
        "lost": len(by_id.keys() - ends.keys() - late_ids.keys()),
        "twice": sum(n - 1 for n in (ends + late_ids).values()) + (places.total() - len(places)),
        "wrong": len(wrong),
        "late": late_ids.total(),
        "late_within_disorder": sum(not by_id[id_].late for id_ in late_ids),
        "failed": len(list(drain(topics[3]))),
    }
