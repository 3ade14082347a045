"""kill -9 of a gateway under load: of one of two, and of the only one, which leaves its engines."""

import asyncio
import contextlib
import random

from open_load import Caller, client_session
from pool_drill import PAIR, pool, two_gateways, under_load, usage_of
from waiting import wait_until

AWAY_S = 2.0
RETRY_FOR_S = 60.0
GRACE_S = 30.0
SAMPLE = 100


async def test_a_killed_gateway_of_two_fails_no_request(tmp_path, load, keep, seed):
    with two_gateways(tmp_path) as (one, two, again):
        wait_until(lambda: one.knows(two.key), 60, "the key at the other gateway")

        async def fault():
            one.process.kill()
            await asyncio.sleep(AWAY_S)
            await asyncio.to_thread(again)

        async with client_session() as session:
            caller = Caller(session, [one.url, two.url], two.key, retry_for_s=RETRY_FOR_S)
            moment = random.Random(seed).uniform(0.2, 0.4)
            outcome = await under_load(caller, fault, moment=moment, **load)
        row = outcome.row(two.charged_usage(), asked_again=repeated_calls(outcome))
    keep("pool_gateway_of_two", row)

    assert not outcome.failures
    assert row["duplicated"] == row["wrong"] == 0


async def test_the_successor_of_the_only_gateway_adopts_its_engines_and_answers(
    tmp_path, load, keep, seed
):
    whole = {"engine_grace_s": GRACE_S}
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(pool(tmp_path, PAIR, **whole))
        engines = first.pids()
        successors = []

        async def fault():
            first.process.kill()
            await asyncio.sleep(AWAY_S)
            successor = pool(tmp_path, PAIR, port=first.port, **whole)
            successors.append(await asyncio.to_thread(stack.enter_context, successor))

        async with client_session() as session:
            caller = Caller(session, [first.url], first.key, retry_for_s=RETRY_FOR_S)
            moment = random.Random(seed).uniform(0.2, 0.4)
            outcome = await under_load(caller, fault, moment=moment, **load)
            old = [t for t in outcome.calls if t.started_s + t.took_s < outcome.fault_s][-SAMPLE:]
            again = await asyncio.gather(*(caller.ask(call.prompt, call.id_) for call in old))
        successor = successors[0]
        adopted = successor.pids()
        row = outcome.row(
            usage_of(successor.admin, first.key_id),
            asked_again=repeated_calls(outcome),
            first_output_s=first_output_s(outcome),
        )
        successor.process.terminate()  # after kill -9 its engines would run for a while
        successor.process.wait(60)
    keep("pool_gateway_only_one", row)

    assert not outcome.failures
    assert adopted == engines
    assert row["duplicated"] == row["wrong"] == 0
    assert {call.ledger for call in again} == {"hit"}
    assert [call.body for call in again] == [call.body for call in old]


def repeated_calls(outcome):
    """How many requests were sent more than once."""
    return sum(call.tries > 1 for call in outcome.calls)


def first_output_s(outcome):
    """Seconds from the kill to the first answer of the successor."""
    ends = (call.started_s + call.took_s - outcome.fault_s for call in outcome.calls)
    return round(min(end for end in ends if end > AWAY_S / 2), 2)
