"""SIGSTOP of one of two engines under load: its requests move to the other, unseen by clients."""

import random
import signal

from open_load import Caller, client_session
from pool_drill import pool, replace_engine, under_load, watch_pool


async def test_a_hung_engine_fails_no_request(tmp_path, load, keep, seed, within):
    chosen = random.Random(seed)
    with pool(tmp_path) as gateway:
        async with client_session() as session, watch_pool(session, gateway.url) as watch:
            victim = chosen.choice(sorted(watch.ready()))
            outcome = await under_load(
                Caller(session, [gateway.url], gateway.key),
                lambda: replace_engine(watch, victim, signal.SIGSTOP),
                moment=chosen.uniform(0.2, 0.4),
                **load,
            )
            ejected_s = watch.ejected_s(victim, outcome.fault_s)
        row = outcome.row(gateway.charged_usage(), ejected_s=ejected_s)
    keep("pool_hang", row)

    assert not outcome.failures
    assert row["duplicated"] == row["wrong"] == 0
    assert ejected_s <= within(2)
