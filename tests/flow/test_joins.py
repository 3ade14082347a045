"""Joins of two streams: what becomes of a record, and which records meet."""

import asyncio
from typing import Any

import pytest
from join_records import DAY_MS, order, payment, stream

import sage_flink as sage
from sage_flink.common import Record
from sage_flink.common.records import RECORD_BYTES_MAX
from sage_flink.flow import (
    Count,
    Graph,
    Tumbling,
)
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.flow.stateful.join_state import joined_id


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


@pytest.mark.slow
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


def test_two_branches_of_one_source_can_be_joined() -> None:
    both = stream("events", order(1, 0, kind="order"), payment(1, 50, kind="payment"))
    orders = both.filter("orders", lambda record: record.value["kind"] == "order")
    payments = both.filter("payments", lambda record: record.value["kind"] == "payment")

    outcome = run(orders.join("paid", payments, within_s=(0, 1)).write("out", ListSink()))

    assert [record.id for record in outcome.written["out"]] == ["paid/orders/0/1~payments/0/1"]
