"""B1 in Quix Streams, with its defaults: state in RocksDB with changelog topics, at least once.

``python quix_ingest.py WORK FOLDER`` in an environment of its own; state is kept in ``FOLDER``.
Keys are those of the messages and times those of Kafka, as its documentation has it. Windows are
closed by any record of their partition, so that the last event ends all. Its interval join meets a
record with earlier ones that were read before it, so it may miss pairs where a topic is out of
order.
https://quix.io/docs/quix-streams/windowing.html, .../joins.html (join_interval)
"""

import json
import sys
from datetime import timedelta
from typing import Any

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Max, Min, Sum

Work = dict[str, Any]
#: It ends after this many seconds without a message; the option ``count`` counts results.
IDLE_S = 10


def stateless(frames: list[Any], work: Work) -> Any:
    """A filter and a projection."""
    buys = frames[0].filter(lambda event: event["kind"] == "buy")
    return buys[["user", "at", "price"]]


def count(frames: list[Any], work: Work) -> Any:
    """Running counts, in the state of the message's key."""

    def add_one(event: Work, state: Any) -> Work:
        n = state.get("n", 0) + 1
        state.set("n", n)
        return {"key": event["user"], "n": n}

    return frames[0].apply(add_one, stateful=True)


def sums(frames: list[Any], work: Work) -> Any:
    """Tumbling windows."""
    size, grace = (timedelta(seconds=work[name]) for name in ("window_s", "disorder_s"))
    windows = frames[0].tumbling_window(size, grace_ms=grace)
    figures = windows.agg(n=Count(), total=Sum("price"), low=Min("price"), high=Max("price"))
    return figures.final(closing_strategy="partition").apply(
        lambda window, key, *_: {"key": key, **window}, metadata=True
    )


def join(frames: list[Any], work: Work) -> Any:
    """Two topics by key and time."""
    orders, payments = frames
    return orders.join_interval(
        payments,
        on_merge=lambda order, payment: {"left": order, "right": payment},
        grace_ms=timedelta(seconds=work["disorder_s"] + work["within_s"]),
        forward_ms=timedelta(seconds=work["within_s"]),
    )


TOPOLOGIES = {"stateless": stateless, "count": count, "sums": sums, "join": join}


def main(work: Work, folder: str) -> None:
    """Run the topology to the end of its topics, and ``IDLE_S`` longer."""
    app = Application(
        broker_address=work["servers"],
        consumer_group=work["out"],
        auto_offset_reset="earliest",
        state_dir=folder,
        loglevel="WARNING",
    )
    topics = [app.topic(name, key_deserializer="str") for name in work["topics"]]
    frames = [app.dataframe(topic) for topic in topics]
    results = TOPOLOGIES[work["topology"]](frames, work)
    results.to_topic(app.topic(work["out"], key_serializer="str"))
    app.run(timeout=IDLE_S, collect=False)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2])
