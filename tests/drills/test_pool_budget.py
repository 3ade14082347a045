"""A budget shared by two gateways is exact, even if one of them is killed and restarted.

**Exact** means: every id gets one result for its client, an answer or a refusal, and the spent
tokens equal the sum of ``usage`` over those answers, counted by the clients. A call that was in
flight in the killed gateway is in one of three states when its client retries it under its id. Not
charged yet: the engine's work is lost, and no tenant pays for it. Charged, with its answer in the
generation ledger: the client gets that answer (``x-sage-ledger: hit``), and it is not charged
again. Charged, without an answer in the ledger: no client has its answer, so the charge is reversed
before the call is admitted again, or refused. Equality must hold at the end, when all clients have
their answers; at every moment the spending is below the budget, and afterwards no tokens remain
reserved for the dead gateway: the budget can be spent to within one call.
"""

import asyncio

import pytest
from open_load import Caller, chat, client_session, closed_loop, p99_ms
from pool_drill import ADMIN, LEASE_S, counts, create_key, two_gateways, usage_of
from waiting import wait_until

IDS_MIN = 1000
CALLERS = 32
CALL_TOKENS = 5  # in the usage of the fake engine
CALL_TOKENS_MAX = len(chat("echo 1000000")) + 64 + 2  # the reservation of a call: tenants/cost.py
AWAY_S = 1.0


@pytest.mark.parametrize("share", [1.0, 0.75], ids=["enough", "too_little"])
async def test_the_spent_tokens_equal_the_usage_of_all_answers(tmp_path, load, keep, share):
    ids = max(IDS_MIN, load["ids"])
    room = CALLERS * CALL_TOKENS_MAX if share == 1 else 0
    budget = round(ids * CALL_TOKENS * share) + room
    with two_gateways(tmp_path) as (one, two, again):
        key = create_key(two.admin, tokens_per_day=budget)
        wait_until(lambda: one.knows(key["key"]), 60, "the key at the other gateway")
        midway, samples = asyncio.Event(), []

        async def kill_and_restart():
            await midway.wait()
            one.process.kill()
            await asyncio.sleep(AWAY_S)
            return await asyncio.to_thread(again)

        async with client_session() as session:
            caller = Caller(session, [one.url, two.url], key["key"], retry_for_s=60)

            async def ask(n):
                if n == ids // 2:
                    midway.set()
                return await caller.ask(f"echo {n}")

            watching = asyncio.create_task(sample_spending(session, two.url, key["id"], samples))
            killing = asyncio.create_task(kill_and_restart())
            calls = await closed_loop(ask, callers=CALLERS, more=lambda n: n < ids)
            successor = await killing
            rest = await spend_the_rest(caller, ids)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        spent = usage_of(two.admin, key["id"], "total_tokens")
        requests = usage_of(successor.admin, key["id"])
    row = budget_row(calls, rest, requests) | {"budget": budget, "spent": spent}
    keep(f"pool_budget_{'enough' if share == 1 else 'too_little'}", row)

    assert spent == row["used"] == CALL_TOKENS * row["answered"]
    assert max([spent, *samples]) <= budget
    assert row["failures"] == row["lost"] == row["duplicated"] == row["wrong"] == 0
    assert row["refused"] == 0 or share < 1
    assert budget - spent < CALL_TOKENS_MAX


def budget_row(calls, rest, requests):
    """The clients' counts; ``rest``: the calls after the drill, until the budget was used up."""
    every = [*calls, *rest]
    return counts(every, requests) | {
        "failures": sum(call.status not in (200, 429) for call in every),
        "answered": sum(call.status == 200 for call in every),
        "refused": sum(call.status == 429 for call in calls),
        "used": sum(call.tokens for call in every),
        "asked_again": sum(call.tries > 1 for call in calls),
        "replayed": sum(call.ledger == "hit" for call in calls),
        "p99_during_ms": p99_ms(calls),
    }


async def sample_spending(session, url, key_id, samples):
    """Record the spent tokens ten times a second."""
    while True:
        async with session.get(f"{url}/v1/usage", headers=ADMIN) as answer:
            lines = (await answer.json())["data"]
        samples.append(sum(line["total_tokens"] for line in lines if line["key"] == key_id))
        await asyncio.sleep(0.1)


async def spend_the_rest(caller, first):
    """Send calls until the budget is used up, including the dead gateway's reservations."""
    await asyncio.sleep(LEASE_S)
    calls = []
    while not calls or calls[-1].status == 200:
        calls.append(await caller.ask(f"echo {first + len(calls)}"))
    return calls
