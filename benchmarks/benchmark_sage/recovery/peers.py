"""Drill of a peer: the same stream, a kill -9 and the same record accounting as the pipeline.

The peers are those of B2, set up as their documentation recommends, with a checkpoint every second
if they have checkpoints. Each uses its own mock engine.
"""

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from benchmark_sage.b2_saturate import backlog
from benchmark_sage.mock_engine import MockEngine
from benchmark_sage.recovery.accounting import DeliveryCounts, SinkContents, count_deliveries
from benchmark_sage.recovery.cluster import until
from benchmark_sage.recovery.drill import CHECKPOINT_S
from benchmark_sage.sides import RunningSide, Side
from benchmark_sage.workload import Work, checksum, message, texts
from sage_connectors.kafka_client import drain, end_offsets, feed
from sage_flink.common import Settings

START_S, QUIET_S, WAIT_S = 120.0, 20.0, 300.0
#: Kills the running side and returns the side that continues its work.
Kill = Callable[[Work, RunningSide], RunningSide]


def peer_drill(
    engine: MockEngine, side: Side, kill: Kill, *, ids: int, rate_per_s: float, seed: int
) -> tuple[DeliveryCounts, float]:
    """The counts of ``ids`` texts fed at ``rate_per_s``, and calls made per id."""
    settings = Settings.load()
    work = Work(
        name=f"peer{uuid.uuid4().hex[:8]}",
        url=engine.url,
        checkpoint_s=CHECKPOINT_S,
        servers=settings.kafka_servers,
    )
    asked = texts(ids, work.name)
    with backlog(work, asked[:1]):  # the first call shows that the side is working
        engine.reset()
        running = side(work)
        try:
            until(lambda: bool(engine.stats()["generations"]), START_S, "the first call")
            fed: list[str] = []
            feeder = threading.Thread(
                target=_feed, args=(work, asked[1:], rate_per_s, fed), daemon=True
            )
            feeder.start()
            at = int(ids * random.Random(seed).uniform(0.3, 0.6))
            until(lambda: len(fed) >= at, WAIT_S, "the stream flows")
            running = kill(work, running)
            feeder.join(WAIT_S)
            _wait_until_quiet(work.answers)
            return _account(work, asked), engine.stats()["generations"] / ids
        finally:
            running.stop()


def _feed(work: Work, asked: Sequence[str], rate_per_s: float, fed: list[str]) -> None:
    def at_rate() -> Iterator[tuple[None, bytes]]:
        began = time.monotonic()
        for number, text in enumerate(asked):
            time.sleep(max(0.0, began + number / rate_per_s - time.monotonic()))
            fed.append(text)
            yield None, message(text)

    feed(work.topic, at_rate())


def _wait_until_quiet(topic: str) -> None:
    """Return when no record was committed to ``topic`` for ``QUIET_S``."""
    history = [(end_offsets(topic, read_committed=True), time.monotonic())]

    def quiet() -> bool:
        now = end_offsets(topic, read_committed=True)
        if now != history[-1][0]:
            history.append((now, time.monotonic()))
        return time.monotonic() - history[-1][1] >= QUIET_S

    until(quiet, WAIT_S, f"{topic} quiet", every_s=0.5)


def _account(work: Work, asked: Sequence[str]) -> DeliveryCounts:
    rows: dict[str, list[str]] = {}
    for record in drain(work.answers):
        page: dict[str, Any] = msgspec.json.decode(record.value)
        rows.setdefault(page["text"], []).append(str(page["answer"]).partition(" ")[0])
    copies = Counter(msgspec.json.decode(record.value)["text"] for record in drain(work.topic))
    return count_deliveries({text: checksum(text) for text in asked}, SinkContents(rows), copies)
