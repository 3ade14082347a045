"""The job ``session_summary`` on real servers: every event in one summary, every session once."""

import json
import random
import uuid
from collections import Counter

import pytest
from waiting import wait_until

import sage_flink as sage
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic, feed
from sage_flink.common import Settings
from sage_flink.flow import FlinkOptions
from sage_flink.platform.flink_rest import FlinkRest
from sage_jobs.session_summary import SessionSummary, build

pytestmark = [
    pytest.mark.service,
    pytest.mark.flink,
    pytest.mark.timeout(600),
    # PyFlink leaves the pipes and sockets of its JVM to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

USERS, SESSIONS, PARTITIONS = 6, 4, 3
FIRST_MS, MINUTE_MS = 1_700_000_000_000, 60_000


@pytest.fixture
def config():
    name = f"sessions{uuid.uuid4().hex[:8]}"
    made = SessionSummary(
        events=f"{name}.events",
        summaries=f"{name}.summaries",
        late=f"{name}.late",
        dead_letters=f"{name}.failed",
        bucket=name,
        tokens_max=16,
    )
    topics = (made.events, made.summaries, made.late, made.dead_letters)
    for topic in topics:
        ensure_topic(topic, PARTITIONS if topic == made.events else 1)
    yield made
    for topic in topics:
        delete_topic(topic)


def events_of(rand: random.Random) -> list[dict]:
    """Some events a session; sessions an hour apart, each user later than the one before."""
    return [
        {
            "user": f"user-{user}",
            "at": FIRST_MS + (number * 60 + user + minute) * MINUTE_MS,
            "action": f"opened page {minute}",
        }
        for number in range(SESSIONS)
        for user in range(USERS)
        for minute in range(rand.randrange(1, 5))
    ]


def test_every_session_is_summarized_once_with_all_of_its_events(config):
    events = events_of(random.Random(1))
    # A last event in every partition ends all sessions; its own ones stay open.
    last_ms = FIRST_MS + SESSIONS * 240 * MINUTE_MS
    ends = [{"user": f"end-{n}", "at": last_ms, "action": "left"} for n in range(30)]
    late = {"user": "user-0", "at": FIRST_MS - 600 * MINUTE_MS, "action": "came too late"}
    sessions = Counter((e["user"], (e["at"] - FIRST_MS) // (60 * MINUTE_MS)) for e in events)
    options = FlinkOptions(parallelism=2, checkpoint_interval_s=1.0)
    store = sage.tsdb.bucket(config.bucket).open()
    with FlinkRest(Settings.load().flink_url) as rest:
        job = sage.flow.submit(build(config), name=config.bucket, options=options)
        try:
            feed(config.events, map(message, [*events, *ends]))
            wait_until(lambda: len(summaries(config)) >= len(sessions), 300, "all summaries")
            feed(config.events, [message(late)])
            wait_until(lambda: len(list(drain(config.late))) == 1, 120, "the late event")
            wait_until(lambda: store.count("session") >= len(sessions), 60, "the points")
        finally:
            rest.cancel(job)

    found = summaries(config)
    assert Counter(s["events"] for s in found) == Counter(sessions.values())
    assert len({(s["user"], s["start_ms"]) for s in found}) == len(found) == len(sessions)
    assert sum(s["events"] for s in found) == len(events)
    assert all(s["summary"] for s in found)
    assert store.count("session") == len(sessions)
    assert list(drain(config.dead_letters)) == []


def message(event: dict):
    return event["user"].encode(), json.dumps(event).encode()


def summaries(config) -> list[dict]:
    return [json.loads(record.value) for record in drain(config.summaries)]
