"""The job orders with payments -> paid orders, orders not paid, payments without an order.

Reads two Kafka topics of JSON messages ``{"order": <id>, "at": <time>, ...}``, the time in
milliseconds since the epoch or in RFC 3339. An order is paid by each payment of its id from
``early_s`` before it to ``within_s`` after it. Each order is in exactly one of the topics of paid
and of unpaid orders (in the first once for each payment), or in that of late records, or among the
dead letters.

That an order was not paid is known when the time of both topics has passed its interval, and
``early_s`` more: of a topic without new records the last orders are still open. A record is late
that arrives when its own topic has passed its interval by more than ``out_of_order_s``.

Run by ``sage jobs submit stream_join`` or ``flink run -py stream_join.py``.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sage_flink as sage
from sage_connectors import kafka
from sage_connectors.formats import Json
from sage_flink.common import Record
from sage_jobs.entry import report_errors, run


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamJoin:
    """Topics and times of the job."""

    orders: str = "orders"
    payments: str = "payments"
    paid: str = "orders-paid"
    unpaid: str = "orders-unpaid"
    without_order: str = "payments-without-order"
    late: str = "orders-late"
    dead_letters: str = "{job}.dead-letters"
    group: str = "{job}"
    early_s: float = 60.0
    within_s: float = 3_600.0
    out_of_order_s: float = 10.0


def build(config: StreamJoin | None = None) -> sage.flow.Graph:
    """The graph; does not contact any server."""
    config = config or StreamJoin()
    joined = _read_with_time("orders", config.orders, config).join(
        "payment",
        _read_with_time("payments", config.payments, config),
        within_s=(config.early_s, config.within_s),
        how="full",
    )
    ends = (
        (joined.flat_map("paid", paid_orders), config.paid),
        (joined.flat_map("unpaid", unpaid), config.unpaid),
        (joined.flat_map("without-order", without_order), config.without_order),
        (joined.late("late").map("late-from", with_topic), config.late),
    )
    branches = (
        stream.write(f"{stream.name}.topic", kafka(topic, format=Json())) for stream, topic in ends
    )
    return sage.flow.pipeline(*branches).dead_letters_to(kafka(config.dead_letters))


def _read_with_time(name: str, topic: str, config: StreamJoin) -> sage.flow.Stream:
    return (
        sage.flow.read(name, kafka(topic, group=config.group, format=Json()))
        .event_time(f"{name}.time", field="at", out_of_order_s=config.out_of_order_s)
        .key_by(f"{name}.key", "order")
    )


def paid_orders(record: Record) -> Iterator[Record]:
    """The order with its payment: ``{"order": ..., "payment": ...}``."""
    order, payment = record.value["left"], record.value["right"]
    if order is not None and payment is not None:
        yield record.replace(value={"order": order, "payment": payment})


def unpaid(record: Record) -> Iterator[Record]:
    """The order that met no payment, as it was read."""
    if record.value["right"] is None:
        yield record.replace(value=record.value["left"])


def without_order(record: Record) -> Iterator[Record]:
    """The payment that met no order, as it was read."""
    if record.value["left"] is None:
        yield record.replace(value=record.value["right"])


def with_topic(record: Record) -> dict[str, Any]:
    """A late record with the topic that it is from: ``{"topic": ..., "record": ...}``."""
    return {"topic": record.origin.rsplit("/", 2)[0], "record": record.value}


def main(
    orders: str = "orders",
    payments: str = "payments",
    within_s: float = 3_600.0,
    out_of_order_s: float = 10.0,
    name: str = "stream_join",
    options: "sage.flow.FlinkOptions | None" = None,
) -> None:
    """Submit the job."""
    config = dataclasses.replace(
        StreamJoin(),
        orders=orders,
        payments=payments,
        within_s=within_s,
        out_of_order_s=out_of_order_s,
    )
    print(sage.flow.submit(build(config), name=name, options=options))


if __name__ == "__main__":
    with report_errors("stream_join"):
        run(main)
