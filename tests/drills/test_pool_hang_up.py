"""Clients that hang up under load: the engines stop within a second, and nobody else sees it."""

import asyncio
import time

import pytest
from open_load import CHAT, Caller, chat, client_session
from pool_drill import ADMIN, pool, under_load, until, watched

AT_ONCE = 8
ABORTED_S = 1.0


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
async def test_a_client_who_hangs_up_ends_the_engines_work(tmp_path, load, keep, within, stream):
    took_s = []
    with pool(tmp_path) as gateway:
        async with client_session() as session, watched(session, gateway.url) as watch:

            async def hang_up_again_and_again():
                for _ in range(3 if load["ids"] < 10_000 else 10):
                    took_s.append(await hung_up(session, gateway, watch, stream=stream))
                    await asyncio.sleep(0.2)

            outcome = await under_load(
                Caller(session, [gateway.url], gateway.key),
                hang_up_again_and_again,
                moment=0.2,
                **load,
            )
            await until(lambda: not any(one["in_flight"] for one in watch.now), 5)
        aborted_s = round(max(took_s), 3)
        row = outcome.row(gateway.charged(), aborted_s=aborted_s)
    keep(f"pool_hang_up_{'streamed' if stream else 'unary'}", row)

    assert not outcome.failures
    assert row["duplicated"] == row["wrong"] == 0
    assert aborted_s <= within(ABORTED_S)


async def hung_up(session, gateway, watch, *, stream):
    """Seconds until the engines have stopped work on all of some calls that nobody waits for."""
    urls = [one["url"] + "/seen" for one in watch.now]
    before = await seen(session, urls)
    words = "slow" if stream else "sleep 30"
    calls = [asyncio.create_task(call(session, gateway, words, stream)) for _ in range(AT_ONCE)]
    await asyncio.sleep(0.5)
    for one in calls:
        one.cancel()
    begun_s = time.monotonic()
    while await seen(session, urls) - before < AT_ONCE:
        assert time.monotonic() - begun_s < 10, "the engines go on"
        await asyncio.sleep(0.01)
    return time.monotonic() - begun_s


async def call(session, gateway, words, stream):
    """A call without an id: one with an id goes on for a while, for who asks again."""
    body = chat(words, stream=stream)
    async with session.post(gateway.url + CHAT, data=body, headers=ADMIN) as answer:
        await answer.read()


async def seen(session, urls):
    """How many callers hung up, as the engines count."""
    found = 0
    for url in urls:
        async with session.get(url) as answer:
            found += (await answer.json())["hung_up"]
    return found
