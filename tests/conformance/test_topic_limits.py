"""Records that a topic does not take are dead letters; the job goes on, and starts once.

A MiniCluster runs the jobs against the stack's broker.
"""

import logging
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from minicluster import QUIET, restore_environment, wait_for_workers
from waiting import wait_until

import sage_flink as sage
from sage_connectors import kafka
from sage_connectors.kafka_client import RECORD_BYTES_MAX, delete_topic, drain, topic_bytes_max
from sage_connectors.kafka_connection import client, library
from sage_flink.common import Record
from sage_flink.common.dead_letters import DeadLetter, from_message
from sage_flink.flow import FlinkOptions
from sage_flink.flow.lists import ListSource

pytestmark = [pytest.mark.flink, pytest.mark.service, pytest.mark.timeout(300), *QUIET]

MIB = 1 << 20
YEAR_MS = 365 * 86_400_000


@pytest.fixture(autouse=True)
def minicluster() -> Iterator[None]:
    yield from restore_environment()
    wait_for_workers()


@pytest.fixture
def topics(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """An output and a dead-letter topic that were there before, with Kafka's usual limit."""
    name = f"limits-{uuid.uuid4().hex}"
    made = (f"{name}.out", f"{name}.dead-letters")
    configs = {"max.message.bytes": str(MIB), "message.timestamp.before.max.ms": str(YEAR_MS)}
    with client("KafkaAdminClient", "") as admin:
        topics = {topic: {"configs": configs} for topic in made}
        admin.create_topics(topics, wait_for_metadata=True)
    yield made
    for topic in made:
        delete_topic(topic)


@dataclass(frozen=True)
class Pass:
    """The record; each start is noted in ``log``."""

    log: str

    def open(self, context: Any) -> None:
        with Path(self.log).open("a") as file:
            file.write(f"{context.step}\n")

    def __call__(self, record: Record) -> Iterable[Record]:
        return (record,)


def letters_of(topic: str) -> list[DeadLetter]:
    return [from_message(message) for message in drain(topic)]


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_records_that_a_topic_does_not_take_are_dead_letters(
    topics: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, delivery: Any
) -> None:
    written, dead = topics
    values = {"small": b"x", "large": b"x" * 2 * MIB, "fields": {"a": 1}, "last": b"z"}
    records = [Record(id_, value, origin=id_) for id_, value in values.items()]
    records.append(Record("old", b"y", 5_000, origin="old"))
    log = tmp_path / "log"
    graph = (
        sage.flow.read("in", ListSource(tuple(records)))
        .flat_map("pass", Pass(str(log)))
        .write("out", kafka(written, delivery=delivery))
        .dead_letters_to(kafka(dead))
    )

    with caplog.at_level(logging.WARNING):
        options = FlinkOptions(target="local", checkpoint_interval_s=0.5)
        sage.flow.submit(graph, name=written, options=options)
    wait_until(lambda: len(list(drain(written))) >= 3, 120, "the small records")
    wait_until(lambda: len(letters_of(dead)) >= 2, 120, "both dead letters")
    time.sleep(2)

    found = {message.key: message for message in drain(written)}
    assert {key: m.value for key, m in found.items()} == {
        b"small": b"x",
        b"last": b"z",
        b"old": b"y",
    }
    assert found[b"old"].timestamp_ms == 5_000
    letters = {letter.id: letter for letter in letters_of(dead)}
    assert letters.keys() == {"large", "fields"}
    assert letters["fields"].record() == records[2]
    assert letters["large"].encoding == "omitted"  # its topic takes 1 MiB as well
    assert f"topic '{written}' takes at most {MIB} (max.message.bytes)" in letters["large"].reason
    assert log.read_text().splitlines() == ["pass"]  # no restart
    assert f"step 'out': topic '{written}' takes messages up to {MIB} bytes" in caplog.text


def test_the_limit_of_a_topic_is_known(topics: tuple[str, str]) -> None:
    assert topic_bytes_max(topics[0]) == MIB
    assert topic_bytes_max("absent") == RECORD_BYTES_MAX


@dataclass(frozen=True)
class ShrinksTopic:
    """The record; at the one with the value ``shrink`` the topic's limit becomes 1 MiB."""

    topic: str
    log: str

    def open(self, context: Any) -> None:
        Pass(self.log).open(context)

    def __call__(self, record: Record) -> Iterable[Record]:
        if record.value == b"shrink":
            with client("KafkaAdminClient", "") as admin:
                configs = {"max.message.bytes": str(MIB)}
                kind = library().admin.ConfigResourceType.TOPIC
                admin.alter_configs([library().admin.ConfigResource(kind, self.topic, configs)])
        yield record


def test_a_limit_that_shrinks_while_the_job_runs_costs_one_restart(
    topics: tuple[str, str], tmp_path: Path
) -> None:
    written, dead = f"{topics[0]}-large", topics[1]
    kafka(written).prepare()
    # The large one is last: the producer tries a batch of several records again for two minutes.
    values = {"first": b"x", "shrink": b"shrink", "next": b"z", "large": b"x" * 2 * MIB}
    records = tuple(Record(id_, value, origin=id_) for id_, value in values.items())
    log = tmp_path / "log"
    graph = (
        sage.flow.read("in", ListSource(records))
        .flat_map("shrink", ShrinksTopic(written, str(log)))
        .write("out", kafka(written))
        .dead_letters_to(kafka(dead))
    )

    try:
        options = FlinkOptions(target="local", checkpoint_interval_s=0.5, restarts_max=3)
        sage.flow.submit(graph, name=written, options=options)
        wait_until(lambda: len(list(drain(written))) >= 3, 120, "the small records")
        wait_until(lambda: letters_of(dead), 120, "the dead letter")

        assert sorted(m.value for m in drain(written)) == [b"shrink", b"x", b"z"]
        assert [letter.id for letter in letters_of(dead)] == ["large"]
        assert log.read_text().splitlines() == ["shrink"] * 2
    finally:
        delete_topic(written)
