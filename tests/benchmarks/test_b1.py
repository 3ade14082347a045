"""The workload of B1, its pipelines in process, and its headline."""

import msgspec
import pytest

import sage_flink as sage
from benchmark_sage import b1_headline, b1_topologies, b1_workload
from benchmark_sage.b1_headline import COMPARISONS
from benchmark_sage.b1_workload import TOPOLOGIES, IngestWork
from sage_connectors import Json
from sage_flink.common import Record
from sage_flink.flow import check
from sage_flink.testing import ListSink, ListSource

RECORDS = 2_000


def work(topology):
    names = tuple(b1_workload.inputs(topology, RECORDS))
    return IngestWork(topology, names, RECORDS, "out", "127.0.0.1:9092")


def source(name, messages):
    rows = (
        Record(f"{name}/0/{number}", msgspec.json.encode(message))
        for number, message in enumerate(messages)
    )
    return ListSource(tuple(rows), Json())


@pytest.mark.parametrize("native", [True, False], ids=["declared", "functions"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
async def test_both_forms_of_a_topology_make_the_results_that_are_expected(topology, native):
    graph = b1_topologies.build(work(topology), native=native)
    inputs = b1_workload.inputs(topology, RECORDS)
    sink = ListSink()

    outcome = await sage.flow.run(
        graph,
        sources={name: source(name, messages) for name, messages in inputs.items()},
        sinks={"out": sink},
    )

    check(graph, "flink")
    results = [msgspec.json.decode(record.value) for record in sink.rows.values()]
    assert not outcome.failed
    assert b1_workload.summary(topology, results) == b1_workload.expected_summary(topology, RECORDS)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_fewer_records_make_other_results(topology):
    whole = b1_workload.expected_summary(topology, RECORDS)

    assert whole["results"] > RECORDS / 10
    assert whole != b1_workload.expected_summary(topology, RECORDS - 20)


def test_the_first_windows_end_two_seconds_after_their_end():
    events = list(b1_workload.events(25_000))

    found = b1_workload.read_before_first_result("sums", 25_000)

    due = b1_workload.FIRST_MS + 2_000
    assert events[found]["at"] >= due > max(event["at"] for event in events[:found])
    assert b1_workload.read_before_first_result("join", 25_000) == 0


def test_the_headline_compares_with_the_best_other_side_of_the_same_repeat():
    comparison = b1_headline.SideComparison("ours", ("a", "b"), "rate", "over the best", 2.0, 3.0)
    rows = {
        "ours": {"sums": [{"rate": 20}, {"rate": 30}, {"error": "away"}]},
        "a": {"sums": [{"rate": 10}, {"error": "away"}, {"rate": 1}]},
        "b": {"sums": [{"rate": 5}, {"rate": 10}, {"rate": 1}]},
    }

    assert b1_headline.ratios(rows, comparison, "sums") == [2.0, 3.0]
    assert b1_headline.ratios({"ours": rows["ours"]}, comparison, "sums") == []


def test_every_topology_has_the_floor_of_the_declared_form():
    row = {"records_per_s": 8, "records_per_cpu_s": 8}
    rows = {side: {name: [row] for name in TOPOLOGIES} for side in ("sage", "flink_sql")}

    found = b1_headline.headline(rows)

    assert [(h.metric.partition(":")[0], h.value, h.floor) for h in found] == [
        (name, 1.0, 0.8) for name in TOPOLOGIES
    ]
    assert all(comparison.floor < comparison.moonshot for comparison in COMPARISONS)
