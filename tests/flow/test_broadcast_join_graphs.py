"""Broadcast joins in a graph: its YAML form and its checks, its replay, its counts."""

from typing import Any

import pytest
from join_records import read, request

from sage_connectors import kafka
from sage_flink.common import FailedRecord, PipelineError
from sage_flink.common.dead_letters import from_message, to_message
from sage_flink.flow import BroadcastJoin, check, explain, from_yaml, lists, to_yaml
from sage_flink.flow.replay import replay
from sage_flink.platform.record_accounting import CountedStep, CounterSnapshot, balance


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"changes": None}, "changes must be a stream"),
        ({"changes": read("requests")}, "another step than left"),
        ({"field": "a..b"}, "the path of a field"),
        ({"into": 5}, "the name of a field"),
        ({"initial": []}, "initial must be rows"),
        ({"initial": {"a": 1}}, "initial must be rows"),
        ({"initial": {"a": {"b": object()}}}, "initial must be rows"),
        ({"initial": {"a": {"b": "x" * 10_000_001}}}, "initial must be rows"),
    ],
)
def test_what_cannot_run_is_refused_where_it_is_written(change: Any, flaw: str) -> None:
    options = {"changes": read("rows"), **change}

    with pytest.raises(PipelineError, match=flaw):
        read("requests").broadcast_join("rules", **options)


YAML = """
steps:
- read: requests
  from: {list_source: {rows: []}}
- read: rows
  from: {list_source: {rows: []}}
- broadcast_join: rules
  left: requests
  right: rows
  into: rule
  field: user.id
  initial:
    anna: {limit: 5}
- write: out
  input: rules
  into: {list_sink: {}}
"""
WORDS = {"list_source": lists.ListSource, "list_sink": lists.ListSink}


def test_the_yaml_form_says_all_of_it() -> None:
    graph = check(from_yaml(YAML, WORDS), "local")

    node = BroadcastJoin("rules", "requests", "rows", "rule", "user.id", {"anna": {"limit": 5}})
    assert graph.by_name["rules"] == node
    assert from_yaml(to_yaml(graph, WORDS), WORDS) == graph
    assert (
        "rules     broadcast_join  <- requests, rows; the row that user.id names of rows into rule;"
        " changes at a checkpoint"
    ) in explain(graph)
    with pytest.raises(PipelineError, match="'rules': initial must be"):
        from_yaml(YAML.replace("anna: {limit: 5}", "anna: 5"), WORDS)
    with pytest.raises(PipelineError, match="'rules': needs a field `right:`"):
        from_yaml(YAML.replace("  right: rows\n", ""), WORDS)


def test_a_replay_through_the_join_is_refused() -> None:
    requests = read("requests").map("clean", lambda record: record.value)
    graph = requests.broadcast_join("rules", read("rows")).write("out", kafka("out"))
    message = to_message(FailedRecord(request(1), "clean", "it failed"), "job")

    done = replay(graph.dead_letters_to(kafka("dead")), [from_message(message.replace(id="d/0/1"))])

    assert done.graph is None
    assert "'rules' would not have the state that the job has" in done.skipped[0].reason


STEPS = (
    CountedStep("requests", "read", ()),
    CountedStep("rows", "read", ()),
    CountedStep("rules", "broadcast_join", ("requests", "rows")),
    CountedStep("out", "write", ("rules",)),
    CountedStep("dead-letters", "dead_letters", ()),
)
COUNTS = {
    "requests.read": 9,
    "requests.emitted": 9,
    "rows.read": 5,
    "rows.emitted": 5,
    "rules.left_read": 9,
    "rules.right_read": 5,
    "rules.emitted": 7,
    "rules.changes": 4,
    "rules.dead_lettered": 3,
    "out.read": 7,
    "out.written": 7,
    "dead-letters.read": 3,
    "dead-letters.written": 3,
}


def test_what_came_in_is_emitted_a_change_or_a_dead_letter() -> None:
    found = balance(STEPS, CounterSnapshot(COUNTS))
    missing = [
        balance(STEPS, CounterSnapshot({**COUNTS, name: n - 1})) for name, n in COUNTS.items()
    ]

    assert found.is_balanced, found.gaps
    assert not any(one.is_balanced for one in missing)
    less = balance(STEPS, CounterSnapshot({**COUNTS, "rules.changes": 3}))
    assert less.gaps == ("rules: 14 read, 7 emitted + 3 dead-lettered + 3 changes (1 missing)",)
