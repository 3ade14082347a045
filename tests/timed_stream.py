"""Events in event time, some of them late, fed to a running job through kills and rescales."""

import json
import random
import threading
import time
from dataclasses import dataclass

from benchmark_sage.recovery.cluster import until
from sage_connectors.kafka_client import drain, feed

FIRST_MS = 1_700_000_000_000
STEP_MS, DISORDER_MS = 5, 2_000
PARTITIONS = 4


@dataclass(frozen=True)
class Event:
    """An event; ``late``: its windows and intervals are over when it comes."""

    id: str
    key: str
    at: int
    late: bool


def events_of(count: int, seed: int, *, keys: int, prefix: str = "e") -> list[Event]:
    """Events ``STEP_MS`` apart; after a start a fifth of them are late."""
    rand = random.Random(seed)
    made = []
    for number in range(count):
        late = number > count // 5 and rand.random() < 0.2
        behind = rand.randrange(30_000, 60_000) if late else rand.randrange(DISORDER_MS)
        key = f"user-{rand.randrange(keys)}"
        made.append(Event(f"{prefix}{number}", key, FIRST_MS + number * STEP_MS - behind, late))
    return made


class TimedFeeder(threading.Thread):
    """Feeds the events at their rate, then some to each partition that end all windows."""

    def __init__(self, topic: str, events: list[Event], events_per_s: float) -> None:
        super().__init__(daemon=True)
        self.topic, self.events, self.events_per_s, self.fed = topic, events, events_per_s, 0

    def run(self) -> None:
        feed(self.topic, self._messages())

    def _messages(self):
        began = time.monotonic()
        for number, event in enumerate(self.events):
            time.sleep(max(0.0, began + number / self.events_per_s - time.monotonic()))
            yield message(event, number)
            self.fed += 1
        end_ms = FIRST_MS + len(self.events) * STEP_MS + 100_000
        for number in range(20 * PARTITIONS):
            yield message(Event("end", f"end-{number}", end_ms, late=False), number=0)

    def wait(self, share: float) -> None:
        until(lambda: self.fed >= share * len(self.events), 600, "the stream flows")


def message(event: Event, number: int) -> tuple[bytes, bytes]:
    value = {"id": event.id, "user": event.key, "at": event.at, "number": number}
    return event.key.encode(), json.dumps(value).encode()


def through_faults(cluster, rest, job_id: str, feeders: list[TimedFeeder]) -> None:
    """Feed; kill the TaskManager twice, and change the parallelism to 4 and to 2 between."""
    until(lambda: rest.all_tasks_running(job_id), 120, "the job's tasks run")
    for feeder in feeders:
        feeder.start()
    for share, fault in (
        (0.2, lambda: cluster.kill_taskmanager(rest, job_id)),
        (0.4, lambda: rest.rescale(job_id, 4)),
        (0.6, lambda: cluster.kill_taskmanager(rest, job_id)),
        (0.8, lambda: rest.rescale(job_id, 2)),
    ):
        feeders[0].wait(share)
        fault()
    for feeder in feeders:
        feeder.join(600)


def values_of(topic: str) -> list[dict]:
    """The JSON values of the topic."""
    return [json.loads(record.value) for record in drain(topic)]
