"""What Flink reads and writes natively: the same records as this process, each once.

A MiniCluster in this process runs the jobs, the Kafka ones against the stack's broker.
"""

import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from minicluster import QUIET, Appended, environment_kept, workers_end
from waiting import wait_until

import sage_flink as sage
from sage_connectors import files, kafka
from sage_connectors.kafka_client import delete_topic, drain, feed
from sage_flink.common import Record, Rejected
from sage_flink.flow import FlinkOptions

pytestmark = [pytest.mark.flink, pytest.mark.timeout(240), *QUIET]

environment_of_its_own = pytest.fixture(autouse=True)(environment_kept)

LOCAL = FlinkOptions(target="local", checkpoint_interval_s=0.5)


@dataclass(frozen=True)
class Discarded:
    """A place for failed records that keeps none."""

    def flink_sink(self, jvm: Any, *, transaction_prefix: str) -> Any:
        return jvm.org.apache.flink.streaming.api.functions.sink.v2.DiscardingSink()


@dataclass(frozen=True)
class OnlyGood:
    """The record itself; one that says ``bad`` is rejected."""

    def __call__(self, record: Record) -> Iterable[Record]:
        if record.value == b"bad":
            raise Rejected("it says so")
        yield record


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No worker of the test is left; their threads end with an error, which is this test's."""
    yield
    workers_end()


def test_flink_reads_the_same_files_as_this_process(folder: Path, tmp_path_factory: Any) -> None:
    source, sink = files(folder), Appended(str(tmp_path_factory.mktemp("out") / "records"))
    graph = sage.flow.read("in", source).write("out", sink).dead_letters_to(Discarded())

    sage.flow.submit(graph, name="conformance-files", options=LOCAL)
    wait_until(lambda: len(sink.held()) >= 3, 120, "three records")

    assert sorted(sink.held(), key=lambda record: record.id) == list(source.records())


@pytest.fixture
def topics() -> Iterator[tuple[str, str, str]]:
    name = f"conformance-{uuid.uuid4().hex}"
    made = (f"{name}.in", f"{name}.out", f"{name}.dead-letters")
    for topic in made:
        kafka(topic).prepare()
    yield made
    for topic in made:
        delete_topic(topic)


@pytest.mark.service
def test_flink_reads_and_writes_topics_and_dead_letters(topics: tuple[str, str, str]) -> None:
    read, written, dead = topics
    feed(read, [(b"k1", b"one", {"h": b"x"}, 1000), (b"k2", b"bad"), (b"k3", b"three")])
    source = kafka(read, group=read, start="earliest", bounded=True)
    graph = (
        sage.flow.read("in", source)
        .flat_map("good", OnlyGood())
        .write("out", kafka(written))
        .dead_letters_to(kafka(dead))
    )

    sage.flow.submit(graph, name=read, options=LOCAL)
    wait_until(lambda: len(list(drain(written))) >= 2, 120, "two records")
    wait_until(lambda: len(list(drain(dead))) >= 1, 30, "the dead letter")

    found = {record.key: record for record in drain(written)}
    assert {key: record.value for key, record in found.items()} == {b"k1": b"one", b"k3": b"three"}
    assert (found[b"k1"].timestamp_ms, found[b"k1"].headers["h"]) == (1000, b"x")
    (letter,) = (json.loads(record.value) for record in drain(dead))
    assert (letter["id"], letter["step"], letter["payload"]) == (f"{read}/0/1", "good", "bad")
