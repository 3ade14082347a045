"""Joins of two streams: what an author writes, what becomes of a record."""

import asyncio
from typing import Any

import pytest

import sage_flink as sage
from sage_connectors import kafka
from sage_flink.common import FailedRecord, PipelineError, Record
from sage_flink.common.dead_letters import from_message, to_message
from sage_flink.common.records import RECORD_BYTES_MAX
from sage_flink.flow import (
    Count,
    Graph,
    Join,
    Late,
    Stream,
    Tumbling,
    check,
    explain,
    from_yaml,
    lists,
    to_yaml,
)
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.replay import replay
from sage_flink.flow.stateful.join_state import joined_id
from sage_flink.operators import DropDeletes
from sage_flink.platform.record_accounting import CountedStep, CounterSnapshot, balance

DAY_MS = 1_700_000_000_000


def event(input_: str, number: int, ms: int, **value: Any) -> Record:
    id_ = f"{input_}/0/{number}"
    return Record(id_, {"user": "a", **value}, DAY_MS + ms, origin=id_)


def order(number: int, ms: int, **value: Any) -> Record:
    return event("orders", number, ms, **value)


def payment(number: int, ms: int, **value: Any) -> Record:
    return event("payments", number, ms, **value)


def stream(name: str, *records: Record) -> Stream:
    """The records by user, with their time."""
    timed = sage.flow.read(name, ListSource(records)).event_time(f"{name}-time", out_of_order_s=0.1)
    return timed.key_by(f"{name}-key", "user")


def run(*branches: Graph) -> Any:
    return asyncio.run(sage.flow.run(sage.flow.pipeline(*branches)))


def test_a_pair_has_both_values_one_id_and_the_later_time() -> None:
    orders = stream("orders", order(1, 0, total=9).replace(headers={"tenant": b"o", "a": b"1"}))
    payments = stream("payments", payment(5, 700, sum=9).replace(headers={"tenant": b"p"}))

    written = run(orders.join("paid", payments, within_s=(0, 1)).write("out", ListSink())).written[
        "out"
    ]

    assert written == [
        Record(
            "paid/orders/0/1~payments/0/5",
            {"left": {"user": "a", "total": 9}, "right": {"user": "a", "sum": 9}},
            DAY_MS + 700,
            b"a",
            {"tenant": b"o", "a": b"1"},
            "orders/0/1",
        )
    ]


@pytest.mark.parametrize(
    ("ms", "meets"), [(-1_001, False), (-1_000, True), (0, True), (2_000, True), (2_001, False)]
)
def test_both_ends_of_the_interval_are_in_it(ms: int, meets: bool) -> None:
    orders, payments = stream("orders", order(1, 0)), stream("payments", payment(1, ms))

    outcome = run(orders.join("paid", payments, within_s=(1, 2)).write("out", ListSink()))

    assert bool(outcome.written["out"]) is meets


@pytest.mark.parametrize(
    ("how", "unpaired"),
    [
        ("inner", []),
        ("left", ["paid/orders/0/2~"]),
        ("full", ["paid/orders/0/2~", "paid/~payments/0/2"]),
    ],
)
def test_a_record_that_met_no_other_is_emitted_once(how: Any, unpaired: list[str]) -> None:
    orders = stream("orders", order(1, 0), order(2, 5_000))
    payments = stream("payments", payment(1, 10), payment(3, 20), payment(2, 50_000))

    outcome = run(orders.join("paid", payments, within_s=(0, 1), how=how).write("out", ListSink()))

    pairs = ["paid/orders/0/1~payments/0/1", "paid/orders/0/1~payments/0/3"]
    assert [record.id for record in outcome.written["out"]] == pairs + unpaired
    assert [r.key for r in outcome.written["out"]] == [b"a"] * len(pairs + unpaired)


def test_records_of_other_keys_do_not_meet() -> None:
    orders = stream("orders", order(1, 0, user="a"), order(2, 0, user="b"))
    payments = stream("payments", payment(1, 0, user="b"), payment(2, 0, user="c"))

    outcome = run(orders.join("paid", payments, within_s=(1, 1)).write("out", ListSink()))

    assert [record.id for record in outcome.written["out"]] == ["paid/orders/0/2~payments/0/1"]


@pytest.mark.parametrize(
    ("late", "ends"), [("dead_letter", {"failed"}), ("drop", set()), ("read", {"late-out"})]
)
def test_a_late_record_goes_where_the_author_says(late: Any, ends: set[str]) -> None:
    orders = stream("orders", order(1, 0), order(2, 9_000), order(3, 10))
    payments = stream("payments", payment(1, 10), payment(2, 9_000))
    way = "drop" if late == "drop" else "dead_letter"
    joined = orders.join("paid", payments, within_s=(0, 1), late=way)
    branches = [joined.write("out", ListSink())]
    if late == "read":
        branches.append(joined.late("late").write("late-out", ListSink()))

    outcome = run(*branches)

    late_records = [*outcome.written.get("late-out", []), *(f.record for f in outcome.failed)]
    found = {name for name in ("late-out",) if outcome.written.get(name)}
    found |= {"failed"} if outcome.failed else set()
    assert found == ends
    assert [r.origin for r in late_records] == ["orders/0/3"] * len(ends)
    assert len(outcome.written["out"]) == 2
    assert all("watermark of its input" in failed.reason for failed in outcome.failed)


def test_a_record_behind_the_watermark_meets_others_while_its_interval_is_open() -> None:
    orders = stream("orders", order(1, 3_000), order(2, 500))
    payments = stream("payments", payment(1, 600), payment(2, 9_000))

    outcome = run(
        orders.join("paid", payments, within_s=(0, 5), how="full").write("out", ListSink())
    )

    assert [record.id for record in outcome.written["out"]] == [
        "paid/orders/0/2~payments/0/1",
        "paid/orders/0/1~",
        "paid/~payments/0/2",
    ]
    assert outcome.failed == []


def test_no_result_is_late_for_a_window_behind_the_join() -> None:
    orders = stream("orders", *(order(n, n * 1_000) for n in range(30)))
    payments = stream("payments", *(payment(n, n * 1_000 + 300) for n in range(0, 30, 2)))
    joined = orders.join("paid", payments, within_s=(0, 5), how="left")
    windows = joined.window("n", Tumbling(2), {"n": Count(), "paid": Count("right")})

    outcome = run(windows.write("out", ListSink()), joined.write("all", ListSink()))

    assert outcome.failed == []
    counted = [record.value["n"] for record in outcome.written["out"]]
    assert sum(counted) == len(outcome.written["all"]) > 60


def test_two_values_that_are_too_large_together_are_one_dead_letter() -> None:
    large = b"x" * (RECORD_BYTES_MAX // 2)
    orders, payments = (
        stream("orders", order(1, 0, large=large)),
        stream("payments", payment(1, 0, large=large)),
    )

    outcome = run(orders.join("paid", payments, within_s=(0, 1)).write("out", ListSink()))

    (failed,) = outcome.failed
    assert outcome.written["out"] == []
    assert (failed.id, failed.step) == ("paid/orders/0/1~payments/0/1", "paid")
    assert "the record has 68157" in failed.reason


def test_records_that_no_keyed_step_takes_are_dead_letters_of_the_join() -> None:
    timed = sage.flow.read("orders", ListSource((order(1, 0),))).event_time("t", out_of_order_s=1)

    outcome = run(
        timed.join("paid", stream("payments"), within_s=(0, 1), how="full").write("o", ListSink())
    )

    (failed,) = outcome.failed
    assert (failed.step, failed.reason) == (
        "paid",
        "has no key: put .key_by(name, field) before this step",
    )
    assert outcome.written["o"] == []


def test_ids_of_different_pairs_are_different() -> None:
    ids = ["a", "a~b", "b", "", "x" * 300, "x" * 299, None, "-", "1:a"]

    made = [joined_id("s", one, other) for one in ids for other in ids]

    assert len({*made}) == len(made)
    assert max(len(id_) for id_ in made) <= 200


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


def test_two_branches_of_one_source_can_be_joined() -> None:
    both = stream("events", order(1, 0, kind="order"), payment(1, 50, kind="payment"))
    orders = both.filter("orders", lambda record: record.value["kind"] == "order")
    payments = both.filter("payments", lambda record: record.value["kind"] == "payment")

    outcome = run(orders.join("paid", payments, within_s=(0, 1)).write("out", ListSink()))

    assert [record.id for record in outcome.written["out"]] == ["paid/orders/0/1~payments/0/1"]


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
