"""kill -9 of one of two engines under load: no client sees it, but for streams, which are told."""

import asyncio
import random
import signal

from open_load import CHAT, Caller, chat, client_session
from pool_drill import ADMIN, pool, replaced, under_load, watched

STREAMS = 4
#: Before the fault, and long before they are over.
BEGUN_S = 1.0


async def test_a_killed_engine_fails_no_request(tmp_path, load, keep, seed, within):
    chosen = random.Random(seed)
    with pool(tmp_path) as gateway:
        async with client_session() as session, watched(session, gateway.url) as watch:
            caller = Caller(session, [gateway.url], gateway.key)
            victim = chosen.choice(sorted(watch.ready()))
            moment = chosen.uniform(0.3, 0.5)
            after_s = moment * load["ids"] / load["rate_per_s"] - BEGUN_S
            streams = [
                asyncio.create_task(streamed(session, gateway, after_s)) for _ in range(STREAMS)
            ]
            outcome = await under_load(
                caller,
                lambda: replaced(watch, victim, signal.SIGKILL),
                moment=moment,
                **load,
            )
            over = [stream.result() for stream in streams if stream.done()]
            told = [stream for stream in over if b'data: {"error"' in stream.splitlines()[-2]]
            for stream in streams:
                stream.cancel()
            ejected_s = watch.ejected_s(victim, outcome.fault_s)
        row = outcome.row(gateway.charged(), ejected_s=ejected_s, streams_told=len(told))
    keep("pool_kill", row)

    assert not outcome.failures
    assert row["duplicated"] == row["wrong"] == 0
    assert ejected_s <= within(2)
    assert told
    assert all(stream in told or stream.endswith(b"data: [DONE]\n\n") for stream in over)


async def streamed(session, gateway, after_s):
    """All of a reply that takes half a minute, or as much as came of it."""
    await asyncio.sleep(after_s)
    body = chat("slow", stream=True)
    async with session.post(gateway.url + CHAT, data=body, headers=ADMIN) as answer:
        return await answer.read()
