"""Clients disconnect under load: the engines stop within a second, other clients see no effect."""

import asyncio
import time

import pytest
from open_load import CHAT, Caller, chat, client_session
from pool_drill import ADMIN, pool, under_load, until, watch_pool

AT_ONCE = 8
ABORTED_S = 1.0
#: The short form shares the machine; calls without an abort would last 20 s or more.
ABORTED_SHORT_S = 10.0


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
async def test_a_client_disconnect_stops_the_engines_work(tmp_path, load, keep, full, stream):
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
            await until(lambda: not any(one["in_flight"] for one in watch.now), 60)
        aborted_s = round(max(took_s), 3)
        row = outcome.row(gateway.charged_usage(), aborted_s=aborted_s)
    keep(f"pool_hang_up_{'streamed' if stream else 'unary'}", row)

    assert not outcome.failures
    assert row["duplicated"] == row["wrong"] == 0
    assert aborted_s <= (ABORTED_S if full else ABORTED_SHORT_S)


async def disconnect(session, gateway, watch, *, stream):
    """Start calls, disconnect, and return the seconds until the engines stopped all of them."""
    urls = [one["url"] + "/seen" for one in watch.now]
    verb = "slow" if stream else "hold"  # the load has neither

    async def disconnects():
        return sum([one["hung_up"] for one in await engine_stats(session, urls)])

    async def chats():
        return sum([one["scripts"].get(verb, 0) for one in await engine_stats(session, urls)])

    before = await disconnects()
    expected = await chats() + AT_ONCE
    begun = []
    calls = [
        asyncio.create_task(call(session, gateway, verb, stream, begun)) for _ in range(AT_ONCE)
    ]
    await reach(chats, expected, "the calls are not at the engines")
    if stream:
        await until(lambda: len(begun) == AT_ONCE, 60)
    for one in calls:
        one.cancel()
    started_s = time.monotonic()
    await reach(disconnects, before + AT_ONCE, "the engines still work")
    return time.monotonic() - started_s


async def reach(count, expected, otherwise):
    """Return when the count is as expected."""
    end_s = time.monotonic() + 60
    while await count() < expected:
        assert time.monotonic() < end_s, otherwise
        await asyncio.sleep(0.01)


async def call(session, gateway, words, stream, begun):
    """A call without an id: the gateway would continue one with an id for a while, for a retry."""
    body = chat(words, stream=stream)
    async with session.post(gateway.url + CHAT, data=body, headers=ADMIN) as answer:
        begun.append(await answer.content.readany())
        await answer.read()


async def engine_stats(session, urls):
    """What the engines have counted."""
    found = []
    for url in urls:
        async with session.get(url) as answer:
            found.append(await answer.json())
    return found
