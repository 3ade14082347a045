"""The job that joins orders with payments, in process and on the local stack."""

import json
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from order_log import Message, OrderLog, order_log
from waiting import wait_until

import sage_flink as sage
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic, feed
from sage_flink.common import Record, Settings
from sage_flink.flow.lists import ListSink, ListSource
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.job_accounting import job_balance
from sage_flink.platform.record_accounting import Balance
from sage_jobs import stream_join
from sage_jobs.stream_join import StreamJoin


def test_the_job_is_a_sound_graph_for_flink() -> None:
    assert sage.flow.check(stream_join.build(), "flink")


async def test_every_order_is_in_one_topic_and_bad_messages_are_dead_letters() -> None:
    log = order_log(1_000, seed=1)
    bad = [(None, b"no json"), (None, b'{"order": "x"}'), (None, b'{"at": 1700000000000}')]
    steps = ("paid.topic", "unpaid.topic", "without-order.topic", "late-from.topic")

    outcome = await sage.flow.run(
        stream_join.build(),
        sources={
            "orders": messages("orders", [*log.orders, *log.orders_then, *bad]),
            "payments": messages("payments", [*log.payments, *log.payments_then]),
        },
        sinks={step: ListSink() for step in steps},
    )

    written = [[json.loads(r.value) for r in outcome.written[step]] for step in steps]
    check_topics(log, *written)
    assert [failed.step for failed in outcome.failed] == ["orders", "orders.time", "orders.key"]


def messages(topic: str, log: Sequence[Message]) -> ListSource:
    return ListSource(
        tuple(
            Record(f"{topic}/0/{n}", value, key=key, origin=f"{topic}/0/{n}")
            for n, (key, value) in enumerate(log)
        )
    )


def check_topics(
    log: OrderLog,
    paid: list[Any],
    unpaid: list[Any],
    without_order: list[Any],
    late: list[Any],
    *,
    late_from: str = "orders",
) -> None:
    """Each order is in the topic where it belongs, once, with its payment."""
    assert Counter(one["order"]["order"] for one in paid) == Counter(log.ids["paid"])
    assert all(one["order"]["order"] == one["payment"]["order"] for one in paid)
    assert Counter(one["order"] for one in unpaid) == Counter(log.ids["unpaid"])
    assert Counter(one["record"]["order"] for one in late) == Counter(log.ids["late"])
    assert {one["topic"] for one in late} == {late_from}
    assert Counter(one["order"] for one in without_order) == Counter(log.without_order)


def balance_after(rest: FlinkRest, name: str, read: int) -> Balance | None:
    """The balance of the job once its join has read so many records."""
    found = job_balance(rest, rest.job(name), wait_s=5)
    joined = next(row.read for row in found.rows if row.step == "payment")
    assert joined is not None
    assert joined <= read
    return found if joined == read else None


@pytest.mark.service
@pytest.mark.flink
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_on_the_stack_every_order_is_in_one_topic_and_the_counts_are_balanced() -> None:
    log, name = order_log(1_000, seed=2), f"t{uuid.uuid4().hex[:10]}"
    names = ("orders", "payments", "paid", "unpaid", "without_order", "late", "dead_letters")
    topics = {topic: f"{name}.{topic}" for topic in names}
    for topic in topics.values():
        ensure_topic(topic)
    feed(topics["orders"], log.orders)
    feed(topics["payments"], log.payments)

    def read(topic: str) -> list[Any]:
        return [json.loads(record.value) for record in drain(topics[topic])]

    with FlinkRest(Settings.load().flink_url) as rest:
        graph = stream_join.build(StreamJoin(**topics, group=name))
        job_id = sage.flow.submit(graph, name=name)
        try:
            wait_until(lambda: len(read("paid")) == 701, 120, "the first orders are paid")
            feed(topics["orders"], log.orders_then)
            feed(topics["payments"], log.payments_then)
            ends = {"paid": 702, "unpaid": 200, "without_order": 100, "late": 100}
            wait_until(lambda: {t: len(read(t)) for t in ends} == ends, 120, "all orders")
            # The counts are a checkpoint's, and arrive after what it has committed.
            counts = wait_until(lambda: balance_after(rest, name, 1_002 + 802), 60, "the counts")
        finally:
            rest.cancel(job_id)

    check_topics(log, *(read(topic) for topic in ends), late_from=topics["orders"])
    assert read("dead_letters") == []
    assert counts.is_balanced, counts.gaps
    for topic in topics.values():
        delete_topic(topic)
