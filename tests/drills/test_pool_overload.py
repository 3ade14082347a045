"""Three times the engines' capacity: admitted requests are served in time, the others get 429."""

import asyncio
import time
from contextlib import asynccontextmanager

import psutil
from open_load import Caller, client_session, closed_loop, open_loop, p99_ms
from pool_drill import counts, pool, watch_pool

SERVICE_S = 0.2
LOW_LOAD_S = 3.0
OVER = 3
PAUSE_S = 0.5
GROWTH_MAX = 1.5


async def test_load_beyond_the_capacity_is_refused_with_retry_after(tmp_path, load, keep, full):
    rate = load["rate_per_s"]
    slots = max(1, round(rate / OVER * SERVICE_S / 2))  # of one of two replicas
    with pool(tmp_path, two_replicas(slots)) as gateway:
        async with client_session() as session:
            caller = Caller(session, [gateway.url], gateway.key)

            async def ask(_):
                return await caller.ask(f"sleep {SERVICE_S}")

            async def low_load():
                # A caller that waits for its answer: after a stall it does not catch up.
                return await closed_loop(ask, callers=1, more=during(LOW_LOAD_S))

            maximum = await closed_loop(ask, callers=2 * slots, more=during(LOW_LOAD_S))
            before = await low_load()
            async with (
                sample_rss(gateway.process.pid) as rss,
                watch_pool(session, gateway.url, "/pool/models") as watch,
            ):
                over = await open_loop(ask, rate_per_s=rate, more=lambda n: n < load["ids"])
                waited = max(page[0]["waiting"] for _, page in watch.samples)
            await asyncio.sleep(PAUSE_S)
            after = await low_load()
        row = overload_row(
            gateway.charged_usage(), maximum=maximum, before=before, over=over, after=after
        )
    row |= {"waiting_max": waited, "rss_mb": [rss[0] >> 20, max(rss) >> 20]}
    keep("pool_overload", row)

    refused = [call for call in over if call.status == 429]
    assert 0 < len(refused) < len(over)
    assert all(call.retry_after.isdigit() and int(call.retry_after) >= 1 for call in refused)
    assert {call.status for call in (*maximum, *before, *after)} == {200}
    assert row["failures"] == row["duplicated"] == row["lost"] == row["wrong"] == 0
    assert waited <= slots
    assert max(rss) <= GROWTH_MAX * rss[0]
    if full:  # the short form shares the machine, so its times mean less
        assert row["goodput"] >= 0.9
        assert row["p99_during_ms"] <= 2 * row["p99_before_ms"]


def two_replicas(slots):
    """A model with ``slots`` slots in each of two replicas, and a queue of as many requests."""
    model = {"engine": "fake", "kind": "chat", "replicas": 2, "concurrency": slots}
    return {"talk": {**model, "queue_max": slots}}


def overload_row(charged, *, maximum, before, over, after):
    """The row of a closed loop, a low load, the overload, and a low load again."""
    calls, good = [*maximum, *before, *over, *after], [call for call in over if call.status == 200]
    return counts(calls, charged) | {
        "failures": sum(call.status not in (200, 429) for call in calls),
        "refused": len(over) - len(good),
        "goodput": round(per_s(good) / per_s(maximum), 3),
        "p99_before_ms": p99_ms(before),
        "p99_during_ms": p99_ms(over),
        "p99_after_ms": p99_ms(after),
    }


def during(seconds):
    """Whether to send more requests: for ``seconds``."""
    until_s = time.monotonic() + seconds
    return lambda _: time.monotonic() < until_s


def per_s(calls):
    """Answers a second, from the first request to the last answer."""
    ends = [call.started_s + call.took_s for call in calls]
    return len(calls) / (max(ends) - min(call.started_s for call in calls))


@asynccontextmanager
async def sample_rss(pid):
    """Samples of a process's resident memory in bytes, twice a second."""
    process = psutil.Process(pid)
    found = [process.memory_info().rss]

    async def sample():
        while True:
            await asyncio.sleep(0.5)
            found.append(process.memory_info().rss)

    sampling = asyncio.create_task(sample())
    try:
        yield found
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
