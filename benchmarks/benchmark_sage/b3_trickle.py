"""B3: how many milliseconds the pipeline adds to a 20 ms call per record at a low rate.

Open loop: each record is due at a fixed time, whether or not earlier ones are answered. Its latency
runs from then until its answer is read from Kafka, minus the call's 20 ms. Each side runs alone and
warm through all the rates; sides are interleaved. ``asyncio_consumer`` is the limit,
``sage_native`` declares what ``sage`` does in Python functions, and ``sage_small_bundles`` is the
latter with the setting for a trickle: bundles of 2 ms instead of 10. Answers are written at least
once and are visible immediately: with exactly once, any writer's answers become visible
only at the next checkpoint.
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from typing import Any

from benchmark_sage import sides
from benchmark_sage.mock_engine import MockEngine, mock_engine
from benchmark_sage.open_loop import Trickle
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.results import Headline, Result, result
from benchmark_sage.usage import Usage
from benchmark_sage.workload import Work, percentile, texts
from sage_connectors.kafka_client import delete_topic, ensure_topic
from sage_flink.common import Settings

SEED, CALL_MS, WARM_RECORDS, WARM_TIMEOUT_S = 1, 20.0, 20, 120.0
#: Records a second -> how long one run lasts at that rate.
RATES_S = {1: 15.0, 10: 10.0, 50: 10.0}
SIDES: dict[str, sides.Side] = {
    "asyncio_consumer": sides.asyncio_consumer,
    "sage": sides.sage_side,
    "sage_native": sides.sage_native,
    "sage_small_bundles": sides.sage_small_bundles,
    "pyflink_default": sides.pyflink_default,
}
#: Start, warm-up and end, only for the estimate of time.
AROUND_S = {
    "asyncio_consumer": 5.0,
    "sage": 14.0,
    "sage_native": 14.0,
    "sage_small_bundles": 14.0,
    "pyflink_default": 22.0,
}
#: Side -> its suffix in the headline.
OURS = {"sage": "", "sage_native": ", native steps", "sage_small_bundles": ", 2-ms bundles"}
Rows = dict[str, dict[str, list[dict[str, Any]]]]


def run(*, repeats: int, records: int = 500) -> Result:
    """Every side ``repeats`` times through all rates, at most ``records`` records a rate."""
    plan = {rate: min(records, round(rate * lasting)) for rate, lasting in RATES_S.items()}
    kept: Rows = {side: {} for side in SIDES}
    whole_s = sum(count / rate for rate, count in plan.items())
    pace = Pace([AROUND_S[side] + whole_s for side in SIDES] * repeats)
    with mock_engine(f"constant:{CALL_MS:g}ms", seed=SEED) as engine:
        for number in range(repeats):
            for side in SIDES:
                row = attempt(run_side, engine, side, plan)
                for rate in plan:
                    name = f"{rate}/s"
                    kept[side].setdefault(name, []).append(row.get(name, row))
                pace.report(f"repeat {number + 1}/{repeats}  {side:<17}", progress_figures(row))
    return result("B3", seed=SEED, repeats=repeats, sides=dict(kept), headline=headline(kept))


def run_side(engine: MockEngine, side: str, plan: dict[int, int]) -> dict[str, Any]:
    """One run of one side through the rates: ``{"10/s": {"added_ms_p50": ..}, ..}``."""
    return asyncio.run(_run_side(engine, side, plan))


async def _run_side(engine: MockEngine, side: str, plan: dict[int, int]) -> dict[str, Any]:
    work = Work(
        name=f"b3-{uuid.uuid4().hex[:8]}",
        url=engine.url,
        servers=Settings.load().kafka_servers,
    )
    for topic in work.topics:
        ensure_topic(topic)
    began = time.monotonic()
    running = await asyncio.to_thread(SIDES[side], work)
    try:
        async with Trickle(work) as trickle:
            await trickle.warm_up(texts(WARM_RECORDS, "warm"), WARM_TIMEOUT_S)
            start_s = round(time.monotonic() - began, 2)
            rows, spans = {}, {}
            with Usage(running.processes) as usage:
                for rate, count in plan.items():
                    first = time.time()
                    rows[rate] = figures(await trickle.send_at_rate(texts(count, f"{rate}/"), rate))
                    spans[rate] = (first, time.time(), count)
            return {
                f"{rate}/s": {**row, **usage.figures(*spans[rate]), "start_s": start_s}
                for rate, row in rows.items()
            }
    finally:
        await asyncio.to_thread(running.stop)
        for topic in work.topics:
            delete_topic(topic)


def figures(latencies_ms: Sequence[float | None]) -> dict[str, Any]:
    """Milliseconds added to the call; None: a record without an answer.

    >>> figures([25.0, None, 30.0])
    {'records': 3, 'lost': 1, 'added_ms_p50': 5.0, 'added_ms_p99': 10.0}
    """
    added = [ms - CALL_MS for ms in latencies_ms if ms is not None]
    counted = {"records": len(latencies_ms), "lost": len(latencies_ms) - len(added)}
    if not added:
        return counted
    spread = {"added_ms_p50": percentile(added, 0.5), "added_ms_p99": percentile(added, 0.99)}
    return {**counted, **{name: round(ms, 2) for name, ms in spread.items()}}


def progress_figures(row: dict[str, Any]) -> dict[str, Any]:
    """The figures of the highest rate, for the progress line."""
    return row if "error" in row else list(row.values())[-1]


def headline(rows: Rows) -> list[Headline]:
    """The p50 that sage adds at each rate, with its defaults and with small bundles."""
    found = []
    for side, named in OURS.items():
        for rate, runs in rows.get(side, {}).items():
            values = [row["added_ms_p50"] for row in runs if "added_ms_p50" in row]
            if values:
                metric = f"added over the call, p50, {rate}{named}"
                found.append(
                    Headline.of(metric, values, unit="ms", floor=15.0, moonshot=8.0, better="lower")
                )
    return found
