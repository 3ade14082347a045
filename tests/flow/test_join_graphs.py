"""Joins of two streams in a graph: its YAML form and its checks, its replay, its counts."""

from typing import Any

import pytest
from join_records import DAY_MS, order, stream

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import FailedRecord, PipelineError, Record
from sage_flink.common.dead_letters import from_message, to_message
from sage_flink.flow import (
    Graph,
    Join,
    Late,
    Stream,
    check,
    explain,
    from_yaml,
    lists,
    to_yaml,
)
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.replay import replay
from sage_flink.operators import DropDeletes
from sage_flink.platform.record_accounting import CountedStep, CounterSnapshot, balance


@pytest.mark.parametrize(
    ("change", "flaw"),
    [
        ({"within_s": 5}, "two numbers of seconds"),
        ({"within_s": (1, 2, 3)}, "two numbers of seconds"),
        ({"within_s": (-1, 2)}, "0 or more seconds"),
        ({"within_s": (0, float("nan"))}, "0 or more seconds"),
        ({"how": "outer"}, "'inner' or 'left' or 'full'"),
        ({"late": "keep"}, "'dead_letter' or 'drop'"),
        ({"other": None}, "other must be a stream"),
        ({"other": stream("orders")}, "another step than left"),
        ({"other": sage.flow.read("plain", ListSource(()))}, "needs event time"),
    ],
)
def test_what_cannot_run_is_refused_where_it_is_written(change: Any, flaw: str) -> None:
    options = {"other": stream("payments"), "within_s": (0, 1), **change}

    with pytest.raises(PipelineError, match=flaw):
        check(stream("orders").join("paid", **options).write("out", ListSink()), "local")


def test_late_records_alone_are_no_output() -> None:
    joined = stream("orders").join("paid", stream("payments"), within_s=(0, 1))

    with pytest.raises(PipelineError, match="'paid': nothing reads its output"):
        check(joined.late("late").write("out", ListSink()), "local")


@pytest.mark.parametrize("input_", ["orders", "payments"])
def test_deletes_reach_neither_input(input_: str) -> None:
    deletes = stream(input_, Record("d", None, DAY_MS, kind="delete", document="x"))
    other = stream("other")

    def joined(one: Stream) -> Graph:
        pair = (one, other) if input_ == "orders" else (other, one)
        return pair[0].join("paid", pair[1], within_s=(0, 1)).write("out", ListSink())

    with pytest.raises(PipelineError, match="'paid': takes no deletes"):
        check(joined(deletes), "local")
    check(joined(deletes.flat_map("upserts", DropDeletes())), "local")


YAML = """
steps:
- read: orders
  from: {list_source: {rows: []}}
- event_time: orders-time
  input: orders
  out_of_order_s: 5.0
- read: payments
  from: {list_source: {rows: []}}
- event_time: payments-time
  input: payments
  out_of_order_s: 5.0
- join: paid
  left: orders-time
  right: payments-time
  within_s: [0.0, 3600.0]
  how: full
- late: late
  input: paid
- write: out
  input: paid
  into: {list_sink: {}}
- write: late-out
  input: late
  into: {list_sink: {}}
"""
WORDS = {"list_source": lists.ListSource, "list_sink": lists.ListSink}


def test_the_yaml_form_says_all_of_it() -> None:
    graph = check(from_yaml(YAML, WORDS), "local")

    assert graph.by_name["paid"] == Join(
        "paid", "orders-time", "payments-time", (0.0, 3600.0), "full"
    )
    assert graph.by_name["late"] == Late("late", "paid")
    assert from_yaml(to_yaml(graph, WORDS), WORDS) == graph


@pytest.mark.parametrize(
    ("was", "becomes", "flaw"),
    [
        ("how: full", "how: outer", "'paid': how must be one of 'inner', 'left', 'full'"),
        ("within_s: [0.0, 3600.0]", "within_s: 5", "'paid': within_s must be"),
        ("  right: payments-time\n", "", "'paid': needs a field `right:`"),
        ("  within_s: [0.0, 3600.0]\n", "", "'paid': needs a field `within_s:`"),
        ("right: payments-time", "right: late", "'paid': reads from 'late', which is not"),
    ],
)
def test_a_wrong_word_in_yaml_names_step_and_field(was: str, becomes: str, flaw: str) -> None:
    with pytest.raises(PipelineError, match=flaw):
        check(from_yaml(YAML.replace(was, becomes), WORDS), "local")


def test_a_join_is_explained_with_its_interval_and_late_records() -> None:
    text = explain(from_yaml(YAML, WORDS))

    assert (
        "join        <- orders-time, payments-time; full; payments-time from 0 s before orders-time"
        " to 3600 s after it; late records: to late"
    ) in text


def test_a_replay_through_a_join_is_refused() -> None:
    orders = stream("orders").map("clean", lambda record: record.value)
    joined = orders.join("paid", stream("payments"), within_s=(0, 1))
    graph = joined.write("out", kafka("out")).dead_letters_to(kafka("dead"))
    message = to_message(FailedRecord(order(1, 0), "clean", "it failed"), "job")

    done = replay(graph, [from_message(message.replace(id="dead/0/1"))])

    assert done.graph is None
    assert "'clean' the join 'paid' would have no record" in done.skipped[0].reason


STEPS = (
    CountedStep("orders", "read", ()),
    CountedStep("payments", "read", ()),
    CountedStep("paid", "join", ("orders", "payments")),
    CountedStep("late", "late", ("paid",)),
    CountedStep("out", "write", ("paid",)),
    CountedStep("late-out", "write", ("late",)),
    CountedStep("dead-letters", "dead_letters", ()),
)
COUNTS = {
    "orders": {"read": 5, "emitted": 5},
    "payments": {"read": 7, "emitted": 7},
    "paid": {"left_read": 5, "right_read": 7, "emitted": 3, "late": 2, "dead_lettered": 1},
    "late": {"read": 2, "emitted": 2},
    "out": {"read": 3, "written": 3},
    "late-out": {"read": 2, "written": 2},
    "dead-letters": {"read": 1, "written": 1},
}


def test_the_counts_of_both_inputs_are_compared_with_what_was_sent() -> None:
    counts = {f"{step}.{name}": n for step, whats in COUNTS.items() for name, n in whats.items()}

    found = balance(STEPS, CounterSnapshot(counts))
    missing = [
        balance(STEPS, CounterSnapshot({**counts, name: n - 1})) for name, n in counts.items()
    ]

    assert found.is_balanced, found.gaps
    assert next(row for row in found.rows if row.step == "paid").read == 12
    assert not any(one.is_balanced for one in missing)
    less = balance(STEPS, CounterSnapshot({**counts, "paid.right_read": 6}))
    assert less.gaps == ("payments -> paid: 7 emitted, 6 read (1 missing)",)
