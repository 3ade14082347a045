"""B1 in plain PyFlink: Python functions on DataStreams, written like PyFlink's own examples.

The formats and connectors are those of ``pyflink/examples/datastream/connectors/kafka_json_format``
(JSON to rows in the JVM), count and windows those of ``state_access`` and
``windowing/tumbling_time_window`` with the incremental aggregation of the documentation's page
"Windows". PyFlink has no interval join: this one keeps both sides in map states and clears them by
timers, as the operator in Java does. Every ``python.fn-execution.*`` setting is PyFlink's default.

``flink run -py pyflink_ingest.py --work WORK --connector JAR``. This file does not import sage.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from typing import Any

from pyflink.common import Duration, Row, Time, Types, WatermarkStrategy
from pyflink.common.watermark_strategy import TimestampAssigner
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.datastream.connectors.base import DeliveryGuarantee
from pyflink.datastream.connectors.kafka import (
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from pyflink.datastream.formats.json import JsonRowDeserializationSchema, JsonRowSerializationSchema
from pyflink.datastream.functions import (
    AggregateFunction,
    KeyedCoProcessFunction,
    KeyedProcessFunction,
    ProcessWindowFunction,
)
from pyflink.datastream.state import MapStateDescriptor, ValueStateDescriptor
from pyflink.datastream.window import TumblingEventTimeWindows

Work = dict[str, Any]
TEXT, LONG, INT, DOUBLE = Types.STRING(), Types.LONG(), Types.INT(), Types.DOUBLE()
EVENT = Types.ROW_NAMED(["user", "kind", "at", "price", "page"], [TEXT, TEXT, LONG, DOUBLE, TEXT])
ORDER = Types.ROW_NAMED(["user", "at", "price"], [TEXT, LONG, INT])
PAYMENT = Types.ROW_NAMED(["user", "at", "paid"], [TEXT, LONG, INT])
FIELDS = Types.ROW_NAMED(["user", "at", "price"], [TEXT, LONG, DOUBLE])
COUNTED = Types.ROW_NAMED(["key", "n"], [TEXT, LONG])
SUMS = Types.ROW_NAMED(
    ["key", "start_ms", "n", "total", "low", "high"], [TEXT, LONG, LONG, DOUBLE, DOUBLE, DOUBLE]
)
PAIR = Types.ROW_NAMED(["left", "right"], [ORDER, PAYMENT])


class AtField(TimestampAssigner):  # type: ignore[misc]
    """The field ``at``."""

    def extract_timestamp(self, value: Any, record_timestamp: int) -> int:
        """Milliseconds since the epoch."""
        return int(value["at"])


class RunningCount(KeyedProcessFunction):  # type: ignore[misc]
    """A count for each key, emitted with every event."""

    def open(self, runtime_context: Any) -> None:
        """Get the state."""
        self.state = runtime_context.get_state(ValueStateDescriptor("count", Types.LONG()))

    def process_element(self, value: Any, ctx: Any) -> Iterator[Row]:
        """The next count of the user."""
        count = (self.state.value() or 0) + 1
        self.state.update(count)
        yield Row(key=value["user"], n=count)


class PriceFigures(AggregateFunction):  # type: ignore[misc]
    """Count, sum, minimum and maximum of prices."""

    def create_accumulator(self) -> tuple[Any, ...]:
        """No prices."""
        return 0, 0.0, float("inf"), float("-inf")

    def add(self, value: Any, accumulator: tuple[Any, ...]) -> tuple[Any, ...]:
        """One more price."""
        n, total, low, high = accumulator
        price = value["price"]
        return n + 1, total + price, min(low, price), max(high, price)

    def get_result(self, accumulator: tuple[Any, ...]) -> tuple[Any, ...]:
        """The figures."""
        return accumulator

    def merge(self, a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        """The figures of both."""
        return a[0] + b[0], a[1] + b[1], min(a[2], b[2]), max(a[3], b[3])


class WithKeyAndStart(ProcessWindowFunction):  # type: ignore[misc]
    """The result of a window."""

    def process(self, key: str, context: Any, elements: Iterable[tuple[Any, ...]]) -> list[Row]:
        """Its figures with its key and start."""
        ((n, total, low, high),) = elements
        start_ms = context.window().start
        return [Row(key=key, start_ms=start_ms, n=n, total=total, low=low, high=high)]


class IntervalJoin(KeyedCoProcessFunction):  # type: ignore[misc]
    """Orders with the payments of their user that are at most ``within_ms`` later."""

    def __init__(self, within_ms: int) -> None:
        self.within_ms = within_ms

    def open(self, runtime_context: Any) -> None:
        """Get the states: amounts by time."""
        self.orders, self.payments = (
            runtime_context.get_map_state(MapStateDescriptor(name, Types.LONG(), Types.INT()))
            for name in ("orders", "payments")
        )

    def process_element1(self, value: Any, ctx: Any) -> Iterator[Row]:
        """The pairs of an order with the payments so far."""
        at = value["at"]
        self.orders.put(at, value["price"])
        ctx.timer_service().register_event_time_timer(at + self.within_ms)
        for paid_at, paid in self.payments.items():
            if at <= paid_at <= at + self.within_ms:
                yield _pair(value["user"], at, value["price"], paid_at, paid)

    def process_element2(self, value: Any, ctx: Any) -> Iterator[Row]:
        """The pairs of a payment with the orders so far."""
        at = value["at"]
        self.payments.put(at, value["paid"])
        ctx.timer_service().register_event_time_timer(at)
        for ordered_at, price in self.orders.items():
            if ordered_at <= at <= ordered_at + self.within_ms:
                yield _pair(value["user"], ordered_at, price, at, value["paid"])

    def on_timer(self, timestamp: int, ctx: Any) -> Iterator[Row]:
        """Clear what no later record can meet."""
        self.payments.remove(timestamp)
        self.orders.remove(timestamp - self.within_ms)
        yield from ()


def _pair(user: str, at: int, price: int, paid_at: int, paid: int) -> Row:
    return Row(left=Row(user=user, at=at, price=price), right=Row(user=user, at=paid_at, paid=paid))


def stateless(env: StreamExecutionEnvironment, work: Work) -> tuple[DataStream, Any]:
    """A filter and a projection."""
    buys = read(env, work, 0, EVENT).filter(lambda event: event["kind"] == "buy")
    return buys.map(
        lambda event: Row(user=event["user"], at=event["at"], price=event["price"]), FIELDS
    ), FIELDS


def count(env: StreamExecutionEnvironment, work: Work) -> tuple[DataStream, Any]:
    """Running counts."""
    keyed = by_user(read(env, work, 0, EVENT))
    return keyed.process(RunningCount(), COUNTED), COUNTED


def sums(env: StreamExecutionEnvironment, work: Work) -> tuple[DataStream, Any]:
    """Tumbling windows."""
    windows = TumblingEventTimeWindows.of(Time.seconds(work["window_s"]))
    keyed = by_user(with_event_time(read(env, work, 0, EVENT), work))
    return keyed.window(windows).aggregate(
        PriceFigures(), window_function=WithKeyAndStart(), output_type=SUMS
    ), SUMS


def join(env: StreamExecutionEnvironment, work: Work) -> tuple[DataStream, Any]:
    """Two streams by key and event time."""
    orders, payments = (
        by_user(with_event_time(read(env, work, index, row), work))
        for index, row in enumerate((ORDER, PAYMENT))
    )
    joined = orders.connect(payments).process(IntervalJoin(work["within_s"] * 1000), PAIR)
    return joined, PAIR


TOPOLOGIES = {"stateless": stateless, "count": count, "sums": sums, "join": join}


def by_user(stream: DataStream) -> Any:
    """The stream, keyed."""
    return stream.key_by(lambda row: row["user"], key_type=TEXT)


def with_event_time(stream: DataStream, work: Work) -> DataStream:
    """The stream with event time and watermarks."""
    disorder = Duration.of_seconds(work["disorder_s"])
    watermarks = WatermarkStrategy.for_bounded_out_of_orderness(disorder)
    return stream.assign_timestamps_and_watermarks(watermarks.with_timestamp_assigner(AtField()))


def read(env: StreamExecutionEnvironment, work: Work, index: int, row: Any) -> DataStream:
    """The rows of one topic, from its start to its present end."""
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers(work["servers"])
        .set_topics(work["topics"][index])
        .set_group_id(work["out"])
        .set_starting_offsets(KafkaOffsetsInitializer.earliest())
        .set_bounded(KafkaOffsetsInitializer.latest())
        .set_value_only_deserializer(JsonRowDeserializationSchema.builder().type_info(row).build())
        .build()
    )
    return env.from_source(source, WatermarkStrategy.no_watermarks(), f"topic-{index}")


def sink(work: Work, row: Any) -> KafkaSink:
    """The topic of results, written exactly once."""
    values = JsonRowSerializationSchema.builder().with_type_info(row).build()
    return (
        KafkaSink.builder()
        .set_bootstrap_servers(work["servers"])
        .set_record_serializer(
            KafkaRecordSerializationSchema.builder()
            .set_topic(work["out"])
            .set_value_serialization_schema(values)
            .build()
        )
        .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .set_transactional_id_prefix(work["out"])
        .set_property("transaction.timeout.ms", "600000")
        .build()
    )


def main() -> None:
    """Build the job and start it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", required=True)
    parser.add_argument("--connector", required=True)
    arguments = parser.parse_args()
    work = json.loads(arguments.work)
    env = StreamExecutionEnvironment.get_execution_environment()
    env.add_jars(arguments.connector)
    env.set_parallelism(1)
    env.enable_checkpointing(5000)
    results, row = TOPOLOGIES[work["topology"]](env, work)
    results.sink_to(sink(work, row))
    env.execute(work["out"])


if __name__ == "__main__":
    main()
