"""Topics that Flink reads and writes natively: each message once, with its time and headers.

A MiniCluster in this process runs the jobs against the stack's broker.
"""

import json
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest
from delete_shapes import SHAPED_LIKE_DELETES
from minicluster import LOCAL, QUIET, DiscardSink
from waiting import wait_until

import sage_flink as sage
from sage_connectors import kafka
from sage_connectors.kafka_client import delete_topic, drain, feed
from sage_connectors.kafka_connection import client
from sage_flink.common import Record, Rejected
from sage_flink.common.dead_letters import from_message
from sage_flink.flow.lists import ListSource

pytestmark = [
    pytest.mark.flink,
    pytest.mark.timeout(240),
    pytest.mark.usefixtures("restored_environment", "no_worker_left"),
    *QUIET,
]


@dataclass(frozen=True)
class RejectBad:
    """The record itself; a record with the value ``bad`` is rejected."""

    def __call__(self, record: Record) -> Iterable[Record]:
        if record.value == b"bad":
            raise Rejected("it says so")
        yield record


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
        .flat_map("good", RejectBad())
        .write("out", kafka(written))
        .dead_letters_to(kafka(dead))
    )

    sage.flow.submit(graph, name=read, options=LOCAL)
    wait_until(lambda: len(list(drain(written))) >= 2, 120, "two records")
    wait_until(lambda: len(list(drain(dead))) >= 1, 30, "the dead letter")

    found = {record.key: record for record in drain(written)}
    assert {key: record.value for key, record in found.items()} == {b"k1": b"one", b"k3": b"three"}
    assert (found[b"k1"].timestamp_ms, found[b"k1"].headers["h"]) == (1000, b"x")
    (message,) = drain(dead)
    letter = from_message(message)
    assert (message.key, message.value) == (b"k2", b"bad")
    assert (letter.id, letter.step, letter.origin) == (f"{read}/0/1", "good", f"{read}/0/1")
    assert letter.record().replace(timestamp_ms=0) == Record(
        f"{read}/0/1", b"bad", key=b"k2", origin=f"{read}/0/1"
    )


@pytest.mark.service
@pytest.mark.parametrize(
    "codec", ["zstd", *(pytest.param(c, marks=pytest.mark.full) for c in ("gzip", "snappy", "lz4"))]
)
def test_topics_of_every_compression_are_read(codec: str) -> None:
    name = f"conformance-{uuid.uuid4().hex}"
    read, written = f"{name}.in", f"{name}.out"
    values = [f"{n} ".encode() * 500 for n in range(20)]
    with client("KafkaAdminClient", "") as admin:
        configs = {"configs": {"compression.type": codec}}  # the broker compresses what it gets
        admin.create_topics({read: configs, written: {}}, wait_for_metadata=True)
    try:
        feed(read, [(b"k", value) for value in values])
        source = kafka(read, start="earliest", bounded=True)
        graph = sage.flow.read("in", source).write("out", kafka(written))
        graph = graph.dead_letters_to(DiscardSink())

        sage.flow.submit(graph, name=name, options=LOCAL)
        wait_until(lambda: drain_values(written) == values, 120, f"all records with {codec}")
    finally:
        for topic in (read, written):
            delete_topic(topic)


def drain_values(topic: str) -> list[object]:
    return [record.value for record in drain(topic)]


@pytest.mark.service
def test_a_record_of_tomorrow_keeps_its_timestamp(topics: tuple[str, str, str]) -> None:
    read, written, dead = topics
    tomorrow_ms = int(time.time() * 1000) + 86_400_000
    record = Record("r", b"value", timestamp_ms=tomorrow_ms)
    graph = (
        sage.flow.read("in", ListSource((record,)))
        .write("out", kafka(written))
        .dead_letters_to(kafka(dead))
    )

    sage.flow.submit(graph, name=read, options=LOCAL)
    wait_until(lambda: list(drain(written)), 120, "the record")

    assert [(r.value, r.timestamp_ms) for r in drain(written)] == [(b"value", tomorrow_ms)]


@pytest.mark.service
def test_a_value_shaped_like_a_delete_is_a_message_of_a_topic(topics: tuple[str, str, str]) -> None:
    read, written, dead = topics
    values = [json.dumps(shape).encode() for shape in SHAPED_LIKE_DELETES]
    feed(read, [(f"k{n}".encode(), value) for n, value in enumerate(values)])
    source = kafka(read, group=read, start="earliest", bounded=True)
    graph = sage.flow.read("in", source).write("out", kafka(written)).dead_letters_to(kafka(dead))

    sage.flow.submit(graph, name=read, options=LOCAL)
    wait_until(lambda: len(list(drain(written))) >= len(values), 120, "all messages")

    assert [record.value for record in drain(written)] == values
