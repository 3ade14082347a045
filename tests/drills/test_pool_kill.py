"""kill -9 of one of two engines under load: only its streams get an error event."""

import asyncio
import random
import signal
import time

from open_load import CHAT, Caller, chat, client_session
from pool_drill import ADMIN, pool, replace_engine, under_load, watch_pool

STREAMS = 4
#: The streams start this long before the fault, and would last much longer.
STREAM_LEAD_S = 1.0


async def test_a_killed_engine_fails_no_request(tmp_path, load, keep, seed, within):
    chosen = random.Random(seed)
    with pool(tmp_path) as gateway:
        async with client_session() as session, watch_pool(session, gateway.url) as watch:
            caller = Caller(session, [gateway.url], gateway.key)
            victim = chosen.choice(sorted(watch.ready()))
            moment = chosen.uniform(0.3, 0.5)
            after_s = moment * load["ids"] / load["rate_per_s"] - STREAM_LEAD_S
            begun, killed_s = asyncio.Semaphore(0), []
            streams = [
                asyncio.create_task(read_stream(session, gateway, after_s, begun))
                for _ in range(STREAMS)
            ]

            async def fault():
                for _ in range(STREAMS):
                    await begun.acquire()
                killed_s.append(time.monotonic())
                await replace_engine(watch, victim, signal.SIGKILL)

            outcome = await under_load(caller, fault, moment=moment, **load)
            done = [stream.result() for stream in streams if stream.done()]
            failed = [stream for stream in done if b'data: {"error"' in stream.splitlines()[-2]]
            for stream in streams:
                stream.cancel()
            ejected_s = watch.ejected_s(victim, killed_s[0])
        row = outcome.row(gateway.charged_usage(), ejected_s=ejected_s, streams_told=len(failed))
    keep("pool_kill", row)

    assert not outcome.failures
    assert row["duplicated"] == row["wrong"] == 0
    assert ejected_s <= within(2)
    assert failed
    assert all(stream in failed or stream.endswith(b"data: [DONE]\n\n") for stream in done)


async def read_stream(session, gateway, after_s, begun):
    """A streamed answer that takes half a minute, or the part of it that arrived."""
    await asyncio.sleep(after_s)
    body = chat("slow", stream=True)
    async with session.post(gateway.url + CHAT, data=body, headers=ADMIN) as answer:
        first = await answer.content.readany()
        begun.release()
        return first + await answer.read()
