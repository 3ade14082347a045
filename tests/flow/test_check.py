"""Whole-graph checks report every finding before anything starts."""

import threading
from dataclasses import dataclass, field

import pytest

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import PipelineError, Record
from sage_flink.flow import Batch, FlatMap, Graph, Read, Write
from sage_flink.flow.lists import ListSink, ListSource

READ = Read("in", ListSource(()))
OUT = ListSink()


def same(record):
    return [record]


def findings(graph, target="local"):
    with pytest.raises(PipelineError) as caught:
        sage.flow.check(graph, target)
    return str(caught.value)


def test_a_sound_graph_is_returned():
    graph = sage.flow.read("in", ListSource(())).write("out", OUT)

    assert sage.flow.check(graph, "local") is graph


def test_every_finding_is_a_line():
    text = findings(Graph((READ, FlatMap("f", "nowhere", same), FlatMap("f", "in", same))))

    assert "step 'f': reads from 'nowhere', which is not an earlier step" in text
    assert "step 'f': the name is used twice; rename one" in text


def test_a_dangling_branch_is_named():
    assert "step 'f': nothing reads its output" in findings(Graph((READ, FlatMap("f", "in", same))))


def test_only_a_sink_reads_from_a_batch():
    batch = Batch("b", "in", 1, 1, 1.0)
    text = findings(Graph((READ, batch, FlatMap("f", "b", same), Write("w", "f", OUT))))

    assert text == "step 'b': a batch feeds exactly one sink; write it to one"


def test_flink_needs_a_dead_letter_topic():
    graph = sage.flow.read("in", ListSource(())).write("out", OUT)

    text = findings(graph, "flink")

    assert "failed records have nowhere to go" in text
    assert 'add .dead_letters_to(kafka("{job}.dead-letters"))' in text


@pytest.mark.parametrize(("topic", "step"), [("in", "in"), ("out", "out"), ("all", "in")])
def test_dead_letters_have_a_topic_of_their_own(topic, step):
    graph = (
        sage.flow.read("in", kafka("in,all"))
        .write("out", kafka("out", delivery="at_least_once"))
        .dead_letters_to(kafka(topic))
    )

    text = findings(graph, "flink")

    assert text.startswith(f"step {step!r}: ")
    assert 'dead_letters_to(kafka("{job}.dead-letters"))' in text


def test_a_function_that_cannot_be_pickled_is_named_with_its_line():
    lock = threading.Lock()
    stream = sage.flow.read("in", ListSource(())).flat_map("f", lambda r: [lock])

    text = findings(stream.write("out", OUT), "flink")

    assert "step 'f': its function (" in text
    assert "test_check.py:" in text


@dataclass(frozen=True)
class Locked(ListSink):
    lock: object = field(default_factory=threading.Lock, compare=False)


def test_a_sink_that_cannot_be_pickled_is_named():
    graph = sage.flow.read("in", ListSource(())).write("out", Locked())

    assert "step 'out': its sink cannot be sent to a worker" in findings(graph, "flink")


def test_a_call_that_cannot_be_pickled_is_named():
    @dataclass(frozen=True)
    class LockedEmbed(type(sage.embed(model="m"))):
        lock: object = field(default_factory=threading.Lock)

    stream = sage.flow.read("in", ListSource(()))
    graph = stream.call("embed", LockedEmbed("m"), capacity=1, timeout_s=1).write("out", OUT)

    assert "step 'embed': its call cannot be sent to a worker" in findings(graph, "flink")


def test_flink_needs_a_batch_before_a_sink_of_python():
    graph = Graph((READ, Write("out", "in", OUT)), kafka("dead"))

    text = findings(graph, "flink")

    assert text == "step 'out': needs a batch before it; add one with .batch(...)"


def test_flink_writes_single_records_to_a_sink_of_its_own():
    batch = Batch("b", "in", 1, 1, 1.0)
    graph = Graph((READ, batch, Write("out", "b", kafka("t"))), kafka("dead"))

    text = findings(graph, "flink")

    assert text == "step 'out': Kafka takes single records; leave out the batch"


@pytest.mark.parametrize("part", ["request", "answer"])
def test_a_step_cannot_be_called_like_a_part_of_a_call(part):
    graph = (
        sage.flow.read("in", ListSource(()))
        .call("embed", sage.embed(model="m"), capacity=1, timeout_s=1)
        .flat_map(f"embed.{part}", same)
        .write("out", kafka("t"))
        .dead_letters_to(kafka("dead"))
    )

    text = findings(graph, "flink")

    assert text == f"step 'embed.{part}': is a part of the call 'embed'; rename one"


def test_a_function_that_makes_a_key_may_say_that_it_returns_text() -> None:
    def user_of(record: Record) -> str:
        return str(record.value["user"])

    keyed = sage.flow.read("in", ListSource(())).key_by("user", user_of)

    sage.flow.check(keyed.write("out", OUT), "local")
