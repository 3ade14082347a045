"""B1 in Bytewax, with one worker and its Kafka connector's defaults.

``python bytewax_ingest.py WORK FOLDER`` in an environment of its own. The clock of its windows
advances with the events only: by default it follows the system's clock too, and a replay that is
slower than the events' own time would find events late. It has no interval join: this one is a
stateful map that keeps both sides, and clears them by the times of later records of the key.
https://docs.bytewax.io/stable/guide/concepts/windowing.html, .../connectors/kafka
"""

import json
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
import bytewax.operators.windowing as win
from bytewax.connectors.kafka import KafkaSinkMessage
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.run import cli_main

Work = dict[str, Any]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def stateless(streams: list[Any], work: Work) -> Any:
    """A filter and a projection; results have their key in front."""
    buys = op.filter("buys", streams[0], lambda event: event["kind"] == "buy")
    fields = ("user", "at", "price")
    return op.map("fields", buys, lambda event: (event["user"], {f: event[f] for f in fields}))


def count(streams: list[Any], work: Work) -> Any:
    """Running counts."""

    def add_one(n: int | None, event: Work) -> tuple[int, Work]:
        now = (n or 0) + 1
        return now, {"key": event["user"], "n": now}

    return op.stateful_map("count", by_user("key", streams[0]), add_one)


def sums(streams: list[Any], work: Work) -> Any:
    """Tumbling windows."""
    clock = win.EventClock(
        time_of,
        wait_for_system_duration=timedelta(seconds=work["disorder_s"]),
        now_getter=lambda: EPOCH,
        to_system_utc=lambda _: None,
    )
    windower = win.TumblingWindower(length=timedelta(seconds=work["window_s"]), align_to=EPOCH)
    windows = win.fold_window(
        *("sums", by_user("key", streams[0]), clock, windower),
        builder=lambda: (0, 0.0, float("inf"), float("-inf")),
        folder=with_price,
        merger=lambda a, b: (a[0] + b[0], a[1] + b[1], min(a[2], b[2]), max(a[3], b[3])),
        ordered=False,
    )
    return op.map("result", windows.down, of_window)


def with_price(figures: tuple[Any, ...], event: Work) -> tuple[Any, ...]:
    """The figures with one more price."""
    n, total, low, high = figures
    price = event["price"]
    return n + 1, total + price, min(low, price), max(high, price)


def of_window(item: tuple[str, tuple[int, tuple[Any, ...]]]) -> tuple[str, Work]:
    """The result of a window."""
    key, (number, (n, total, low, high)) = item
    return key, {"key": key, "index": number, "n": n, "total": total, "low": low, "high": high}


def join(streams: list[Any], work: Work) -> Any:
    """Two streams by key and time."""
    orders, payments = (
        op.map(f"{side}-side", stream, lambda value, side=side: (value["user"], (side, value)))
        for side, stream in zip(("left", "right"), streams, strict=True)
    )
    return op.stateful_flat_map("pairs", op.merge("both", orders, payments), pairs(work))


def pairs(work: Work) -> Callable[[Any, Any], tuple[Any, Iterable[Work]]]:
    """The step of the join: the two sides of a key so far and a record -> the sides, and pairs."""
    empty: Callable[[], tuple[list[Work], list[Work]]] = lambda: ([], [])  # noqa: E731
    within_ms, disorder_ms = work["within_s"] * 1000, work["disorder_s"] * 1000

    def meet(sides: Any, item: tuple[str, Work]) -> tuple[Any, Iterable[Work]]:
        left, right = sides or empty()
        side, value = item
        at = value["at"]
        if side == "left":
            left.append(value)
            found = [(value, each) for each in right if 0 <= each["at"] - at <= within_ms]
            right = [each for each in right if each["at"] > at - disorder_ms]
        else:
            right.append(value)
            found = [(each, value) for each in left if 0 <= at - each["at"] <= within_ms]
            left = [each for each in left if each["at"] > at - disorder_ms - within_ms]
        return (left, right), [{"left": order, "right": payment} for order, payment in found]

    return meet


TOPOLOGIES = {"stateless": stateless, "count": count, "sums": sums, "join": join}


def by_user(step: str, stream: Any) -> Any:
    """The stream, keyed."""
    return op.key_on(step, stream, lambda value: value["user"])


def time_of(event: Work) -> datetime:
    """The event time."""
    return EPOCH + timedelta(milliseconds=event["at"])


def message(item: tuple[str, Work]) -> Any:
    """A result as a message."""
    key, value = item
    return KafkaSinkMessage(key.encode(), json.dumps(value).encode())


def flow_of(work: Work) -> Dataflow:
    """The dataflow from the present messages of the topics to the topic of results."""
    flow, brokers = Dataflow(work["topology"]), [work["servers"]]
    streams = []
    for topic in work["topics"]:
        read = kop.input(topic, flow, brokers=brokers, topics=[topic], tail=False)
        decoded = op.map(f"{topic}-json", read.oks, lambda message: json.loads(message.value))
        streams.append(decoded)
    results = TOPOLOGIES[work["topology"]](streams, work)
    kop.output("out", op.map("message", results, message), brokers=brokers, topic=work["out"])
    return flow


if __name__ == "__main__":
    cli_main(flow_of(json.loads(sys.argv[1])))
