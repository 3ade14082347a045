"""B2: how busy the engine's slots are while a backlog passes one chat call per record.

64 calls are in flight. The mock engine answers after a time derived from the text, so all sides
wait equally long. ``busy`` is the sum of those times over capacity x seconds from the first call to
the last answer, measured at the engine; ``start_s`` is the start of the workers, which is not
included. Sides, interleaved:

``sage``               the pipeline as a Flink job, Kafka to Kafka
``limit``              aiohttp alone over the same texts, no Kafka
``pyflink_default``    PyFlink's AsyncDataStream at its defaults, Kafka to Kafka
``asyncio_consumer``   aiokafka with auto-commit, Kafka to Kafka

The answers show how many records a side lost, duplicated or got wrong. The same on a real engine
is :mod:`benchmark_sage.b2_real`.
"""

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from benchmark_sage import sides
from benchmark_sage.b2_headline import Rows, headline
from benchmark_sage.mock_engine import MockEngine, mock_engine
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.results import Result, result
from benchmark_sage.usage import Usage
from benchmark_sage.workload import Work, count_answers, message, texts
from sage_connectors.kafka_client import delete_topic, drain, ensure_topic, feed
from sage_flink.common import Settings

#: A fresh TaskManager compiles for half a minute, so the results of these first runs are dropped.
WARMED, WARM_RECORDS = ("sage", "pyflink_default"), 1000
SEED, CAPACITY, MEAN_S, WAIT_S = 1, 64, 0.05, 600.0
SIDES: dict[str, sides.Side] = {
    "sage": sides.sage_side,
    "limit": sides.limit,
    "asyncio_consumer": sides.asyncio_consumer,
    "pyflink_default": sides.pyflink_default,
}


class BacklogArm(NamedTuple):
    """One setting and the sides that run with it. ``share`` is the fraction of the records."""

    name: str
    latency: str
    checkpoint_s: float
    share: float
    sides: tuple[str, ...]


ARMS = (
    BacklogArm("lognormal s=1", "lognormal:50ms:1.0", 1.0, 1.0, tuple(SIDES)),
    BacklogArm("lognormal s=0.5", "lognormal:50ms:0.5", 1.0, 0.25, tuple(SIDES)),
    BacklogArm("constant", "constant:50ms", 1.0, 0.25, tuple(SIDES)),
    BacklogArm("s=1, no checkpoints", "lognormal:50ms:1.0", 0.0, 1.0, ("sage",)),
)
#: Seconds around the calls (submit, workers, end, counting), and slots busy in a trial: only for
#: the estimate of time.
AROUND_S = {"sage": 10.0, "limit": 1.5, "asyncio_consumer": 4.0, "pyflink_default": 15.0}
SEEN_BUSY = {"sage": 0.85, "limit": 0.95, "asyncio_consumer": 0.9, "pyflink_default": 0.5}


def run(*, repeats: int, records: int = 20_000, arms: Sequence[BacklogArm] = ARMS) -> Result:
    """Every side of every arm ``repeats`` times, ``records`` records in the largest arm."""
    kept: Rows = {name: {} for name in SIDES}
    pace = Pace([seconds(arm, side, records) for arm in arms for side in arm.sides] * repeats)
    with mock_engine(seed=SEED) as engine:
        for side in WARMED if records > WARM_RECORDS else ():
            attempt(run_side, engine, arms[0], side, WARM_RECORDS)
        for number in range(repeats):
            for arm in arms:
                engine.control(latency=arm.latency)
                for side in arm.sides:
                    row = attempt(run_side, engine, arm, side, records)
                    kept[side].setdefault(arm.name, []).append(row)
                    pace.report(f"repeat {number + 1}/{repeats}  {arm.name:<30} {side:<17}", row)
    return result("B2", seed=SEED, repeats=repeats, sides=dict(kept), headline=headline(kept))


def seconds(arm: BacklogArm, side: str, records: int) -> float:
    """The approximate time of one run."""
    calls_s = records * arm.share * MEAN_S / CAPACITY
    return AROUND_S[side] + calls_s / SEEN_BUSY[side]


def run_side(engine: MockEngine, arm: BacklogArm, side: str, records: int) -> dict[str, Any]:
    """One run of one side: slots busy, CPU, memory, and the counts of its answers."""
    asked = texts(max(1, round(records * arm.share)))
    work = Work(
        name=f"b2-{uuid.uuid4().hex[:8]}",
        url=engine.url,
        capacity=CAPACITY,
        records=len(asked),
        checkpoint_s=arm.checkpoint_s,
        servers=Settings.load().kafka_servers,
    )
    with backlog(work, asked if side != "limit" else []):
        engine.reset()
        began = time.time()
        running = SIDES[side](work)
        try:
            with Usage(running.processes) as usage:
                running.wait(WAIT_S)
        finally:
            running.stop()
        stats = engine.stats()
        first, last = stats["first_request_at"], stats["last_answer_at"]
        counted = {} if side == "limit" else count_answers(asked, drain(work.answers))
        return {
            "busy": round(stats["latency_drawn_s"] / ((last - first) * CAPACITY), 4),
            "records_per_s": round(len(asked) / (last - first), 1),
            "seconds": round(last - first, 3),
            "start_s": round(first - began, 2),
            "calls": stats["generations"],
            **usage.figures(first, last, len(asked)),
            **counted,
        }


@contextmanager
def backlog(work: Work, asked: Sequence[str]) -> Iterator[None]:
    """Create the work's topics, feed the messages, and delete the topics after the block."""
    for topic in work.topics:
        ensure_topic(topic)
    try:
        feed(work.topic, [(None, message(text)) for text in asked])
        yield
    finally:
        for topic in work.topics:
            delete_topic(topic)
