"""Whole-graph checks report every finding before anything starts."""

import pytest

import sage_flink as sage
from sage_flink.common import PipelineError
from sage_flink.flow import Batch, FlatMap, Graph, Read, Write
from sage_flink.flow.memory import Collected, Given

READ = Read("in", Given(()))
OUT = Collected()


def findings(graph, target="local"):
    with pytest.raises(PipelineError) as caught:
        sage.flow.check(graph, target)
    return str(caught.value)


def test_a_sound_graph_comes_back():
    graph = sage.flow.read("in", Given(())).write("out", OUT)

    assert sage.flow.check(graph, "local") is graph


def test_every_finding_is_a_line():
    text = findings(Graph((READ, FlatMap("f", "nowhere", list), FlatMap("f", "in", list))))

    assert "step 'f': reads from 'nowhere', which is not an earlier step" in text
    assert "step 'f': the name is used twice; rename one" in text


def test_a_dangling_branch_is_named():
    assert "step 'f': nothing reads its output" in findings(Graph((READ, FlatMap("f", "in", list))))


def test_only_a_sink_reads_from_a_batch():
    batch = Batch("b", "in", 1, 1, 1.0)
    text = findings(Graph((READ, batch, FlatMap("f", "b", list), Write("w", "f", OUT))))

    assert "step 'b': a batch feeds exactly one sink" in text


def test_flink_needs_a_place_for_failed_records():
    graph = sage.flow.read("in", Given(())).write("out", OUT)

    assert "failed records have nowhere to go" in findings(graph, "flink")


def test_a_function_that_cannot_travel_is_named_with_its_line():
    lock = __import__("threading").Lock()
    stream = sage.flow.read("in", Given(())).flat_map("f", lambda r: [lock])

    text = findings(stream.write("out", OUT), "flink")

    assert "step 'f': its function (" in text
    assert "test_check.py:" in text
