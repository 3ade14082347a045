"""SIGSTOP of one of two engines under load: no client sees it, and what it had goes elsewhere."""

import random
import signal

from open_load import Caller, client_session
from pool_drill import pool, replaced, under_load, watched


async def test_a_hung_engine_fails_no_request(tmp_path, load, keep, seed, within):
    chosen = random.Random(seed)
    with pool(tmp_path) as gateway:
        async with client_session() as session, watched(session, gateway.url) as watch:
            victim = chosen.choice(sorted(watch.ready()))
            outcome = await under_load(
                Caller(session, [gateway.url], gateway.key),
                lambda: replaced(watch, victim, signal.SIGSTOP),
                moment=chosen.uniform(0.2, 0.4),
                **load,
            )
            ejected_s = watch.ejected_s(victim, outcome.fault_s)
        row = outcome.row(gateway.charged(), ejected_s=ejected_s)
    keep("pool_hang", row)

    assert not outcome.failures
    assert row["duplicated"] == row["wrong"] == 0
    assert ejected_s <= within(2)
