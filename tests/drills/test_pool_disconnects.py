"""Clients disconnect under load: the engines stop within a second, other clients see no effect."""

import asyncio
import time

import pytest
from open_load import CHAT, Caller, chat, client_session
from pool_drill import ADMIN, pool, under_load, until, watch_pool

AT_ONCE = 8
ABORTED_S = 1.0


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
async def test_a_client_disconnect_stops_the_engines_work(tmp_path, load, keep, within, stream):
    took_s = []
    with pool(tmp_path) as gateway:
        async with client_session() as session, watch_pool(session, gateway.url) as watch:

            async def disconnect_repeatedly():
                for _ in range(3 if load["ids"] < 10_000 else 10):
                    took_s.append(await disconnect(session, gateway, watch, stream=stream))
                    await asyncio.sleep(0.2)

            outcome = await under_load(
                Caller(session, [gateway.url], gateway.key),
                disconnect_repeatedly,
                moment=0.2,
                **load,
            )
            await until(lambda: not any(one["in_flight"] for one in watch.now), 5)
        aborted_s = round(max(took_s), 3)
        row = outcome.row(gateway.charged_usage(), aborted_s=aborted_s)
    keep(f"pool_hang_up_{'streamed' if stream else 'unary'}", row)

    assert not outcome.failures
    assert row["duplicated"] == row["wrong"] == 0
    assert aborted_s <= within(ABORTED_S)


async def disconnect(session, gateway, watch, *, stream):
    """Start calls, disconnect, and return the seconds until the engines stopped all of them."""
    urls = [one["url"] + "/seen" for one in watch.now]
    before = await count_disconnects(session, urls)
    words = "slow" if stream else "sleep 30"
    calls = [asyncio.create_task(call(session, gateway, words, stream)) for _ in range(AT_ONCE)]
    await asyncio.sleep(0.5)
    for one in calls:
        one.cancel()
    started_s = time.monotonic()
    while await count_disconnects(session, urls) - before < AT_ONCE:
        assert time.monotonic() - started_s < 10, "the engines still work"
        await asyncio.sleep(0.01)
    return time.monotonic() - started_s


async def call(session, gateway, words, stream):
    """A call without an id: the gateway would continue one with an id for a while, for a retry."""
    body = chat(words, stream=stream)
    async with session.post(gateway.url + CHAT, data=body, headers=ADMIN) as answer:
        await answer.read()


async def count_disconnects(session, urls):
    """How many disconnects the engines have counted."""
    found = 0
    for url in urls:
        async with session.get(url) as answer:
            found += (await answer.json())["hung_up"]
    return found
