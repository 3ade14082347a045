"""Scale: llama.cpp replicas that follow a changing load, 1 -> 3 -> 1 -> 0 -> 1.

The benchmark adds a model to the gateway's pool. At first one caller sends requests, then many
until three replicas are ready, then one occasionally until one replica is left, then no caller
until no replica is left; the last request arrives at zero replicas. Throughout, the gateway's
decisions and their causes are recorded. The second case is a Flink job with a slow Python step: the
pool has room, and no replica may be added.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from benchmark_sage import scale_job
from benchmark_sage.pace import Pace, attempt
from benchmark_sage.results import RESULTS, Headline, Result, result
from benchmark_sage.scale_watch import STEP_S, ModelClient, without_repeats
from benchmark_sage.workload import Work, message, texts
from sage_connectors.kafka_client import delete_topic, ensure_topic, feed
from sage_flink.common import Settings
from sage_flink.tsdb import bucket

MODEL = "scaled"
SPEC: dict[str, Any] = {
    "engine": "llamacpp",
    "kind": "chat",
    "source": "smollm2-135m-instruct.gguf",
    "slots": 2,
    "concurrency": 2,
    "context_tokens": 1024,
    "queue_timeout_s": 120,
    "scaling": {
        "min": 0,
        "max": 3,
        "target_queue_wait_ms": 500,
        "up_cooldown_s": 5,
        "down_cooldown_s": 10,
        "idle_s": 15,
    },
}
MANY, PAUSE_S, FULL_S = 12, 2.0, 15.0
SLOW_S, LAG = 0.5, 20_000
#: From a trial, only for the estimate of time.
CYCLE_S, SLOW_STEP_S = 180.0, 90.0


def run(*, repeats: int, records: int = LAG) -> Result:
    """The cycle and the slow step, ``repeats`` times; the slow step has a lag of ``records``."""
    measures: dict[str, Callable[[], dict[str, Any]]] = {
        "cycle": lambda: asyncio.run(_cycle()),
        "slow_python_step": lambda: _slow_step(records),
    }
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in measures}
    pace = Pace([CYCLE_S, SLOW_STEP_S] * repeats)
    for number in range(repeats):
        for side, measure in measures.items():
            row = attempt(measure)
            rows[side].append(row)
            pace.report(f"repeat {number + 1}/{repeats}  {side:<17}", row)
            print(f"  {row.get('replicas', '')} {row.get('words', '')}", flush=True)
    _plot(rows["cycle"], RESULTS / "scale.png")
    return result("scale", seed=0, repeats=repeats, sides=dict(rows), headline=headline(rows))


def headline(rows: dict[str, list[dict[str, Any]]]) -> list[Headline]:
    """How long the first request waits for a model at zero, and how many requests failed."""
    cycles = [row for row in rows["cycle"] if "error" not in row]
    if not cycles:
        return []
    first = [row["first_from_zero_s"] for row in cycles]
    failed = [float(row["failed"]) for row in cycles]
    return [
        Headline.worst("first answer of a model at zero", first, unit="s", floor=15, moonshot=2),
        Headline.worst("requests failed during the cycle", failed, unit="", floor=0, moonshot=0),
    ]


@contextlib.asynccontextmanager
async def _gateway(spec: dict[str, Any]) -> AsyncIterator[ModelClient]:
    settings = Settings.load()
    headers = {"Authorization": f"Bearer {settings.secret('gateway')}"}
    limit = aiohttp.ClientTimeout(total=STEP_S)
    async with aiohttp.ClientSession(
        settings.gateway_urls[0], headers=headers, timeout=limit
    ) as session:
        gateway = ModelClient(session, MODEL)
        await gateway.put(spec)
        watch = asyncio.create_task(gateway.watch())
        try:
            await gateway.until(lambda sample: sample.ready == 1)
            yield gateway
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await gateway.delete()


async def _cycle(spec: dict[str, Any] = SPEC) -> dict[str, Any]:
    began_ns = time.time_ns()
    async with _gateway(spec) as gateway:
        async with gateway.callers(1):
            await asyncio.sleep(FULL_S)
        async with gateway.callers(MANY):
            await gateway.until(lambda sample: sample.ready == 3)
            await asyncio.sleep(FULL_S)
        async with gateway.callers(1, PAUSE_S):
            await gateway.until(lambda sample: sample.wanted == 1)
        await gateway.until(lambda sample: sample.wanted == 0 == sample.ready)
        began_s = time.monotonic()
        await gateway.ask("Are you there?")
        first_s = time.monotonic() - began_s
        await gateway.until(lambda sample: sample.ready == 1)
        decisions = await gateway.decisions(began_ns / 1e9)
        points = await asyncio.to_thread(_points_since, began_ns)
        changes = [one for one in reversed(decisions) if one["action"] != "hold"]
        return {
            "replicas": without_repeats([sample.wanted for sample in gateway.samples]),
            "first_from_zero_s": round(first_s, 2),
            "requests": len(gateway.statuses),
            "failed": sum(status != 200 for status in gateway.statuses),
            "decisions_in_influxdb": points,
            "seconds": gateway.samples[-1].at_s,
            "changes": [
                {name: one[name] for name in ("at", "action", "replicas", "cause", "words")}
                for one in changes
            ],
            "samples": [sample._asdict() for sample in gateway.samples],
        }


def _points_since(began_ns: int) -> int:
    """How many decisions the time-series store has; those of the last seconds may be missing."""
    store = bucket("pool").open()
    try:
        return store.count("pool_decision", began_ns)
    finally:
        store.close()


def _slow_step(records: int) -> dict[str, Any]:
    settings, name = Settings.load(), f"scale-{uuid.uuid4().hex[:8]}"
    work = Work(
        name=name,
        url=settings.gateway_url,
        key=settings.secret("gateway"),
        model=MODEL,
        tokens_max=4,
        capacity=8,
        servers=settings.kafka_servers,
        salt=name,
    )
    for topic in work.topics:
        ensure_topic(topic)
    try:
        feed(work.topic, [(None, message(text)) for text in texts(records, work.salt)])
        return asyncio.run(_beside_slow(work))
    finally:
        for topic in work.topics:
            delete_topic(topic)


async def _beside_slow(work: Work) -> dict[str, Any]:
    spec = SPEC | {"scaling": SPEC["scaling"] | {"min": 1}}
    began_s = time.time()
    async with _gateway(spec) as gateway:
        stop = await asyncio.to_thread(scale_job.start, work, SLOW_S)
        try:
            await gateway.until(lambda sample: sample.cause == "not_the_pool")
            await asyncio.sleep(2 * FULL_S)
            decisions = await gateway.decisions(began_s)
        finally:
            await asyncio.to_thread(stop)
        found = [one for one in decisions if one["cause"] == "not_the_pool"]
        return {
            "replicas": without_repeats([sample.wanted for sample in gateway.samples]),
            "added": sum(one["action"] == "add" for one in decisions),
            "words": found[0]["words"],
            "inputs": found[0]["inputs"],
            "samples": [sample._asdict() for sample in gateway.samples],
        }


def _plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot replicas and queue wait of the first cycle that ran."""
    from matplotlib.figure import Figure

    row = next((row for row in rows if "samples" in row), None)
    if row is None:
        return
    figure = Figure(figsize=(9, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    at_s = [sample["at_s"] for sample in row["samples"]]
    for name, style in {"wanted": "--", "ready": "-"}.items():
        counts = [sample[name] for sample in row["samples"]]
        above.step(at_s, counts, style, where="post", label=name)
    above.set_ylabel("replicas")
    above.legend()
    below.plot(at_s, [sample["wait_ms_p99"] / 1000 for sample in row["samples"]])
    below.axhline(SPEC["scaling"]["target_queue_wait_ms"] / 1000, linestyle=":")
    below.set_ylabel("queue wait p99, s")
    below.set_xlabel("seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
