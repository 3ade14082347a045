"""A budget over two gateways, one of which is killed midway and comes back, is exact.

**Exact** means: each id came to one end for its client, an answer or a refusal, and what the
account has spent is the sum of ``usage`` over those answers, counted by the clients. Of a call that
the killed gateway was at, this asks one of three things when its client asks again under its id.
Not charged yet: the engine's work is lost, and nobody pays for it. Charged, and its answer in the
ledger: the client gets that answer (``x-sage-ledger: hit``), and it is not charged again. Charged,
and not in the ledger: no client has its answer, so the charge is taken back before the call is
admitted again, or refused. Equality is asked of the end, when all clients have had their answers;
at every moment the account is below the budget, and afterwards nothing of it is held back for the
dead: it can be spent to within one call.
"""

import asyncio

import pytest
from open_load import Caller, chat, client_session, closed_loop, p99_ms
from pool_drill import ADMIN, LEASE_S, charged, counts, made_key, two_gateways
from waiting import wait_until

IDS_MIN = 1000
CALLERS = 32
CALL_TOKENS = 5  # as the fake engine says
MOST_TOKENS = len(chat("echo 1000000")) + 64 + 2  # that a call can cost: see tenants/cost.py
AWAY_S = 1.0


@pytest.mark.parametrize("share", [1.0, 0.75], ids=["enough", "too_little"])
async def test_spent_is_the_usage_of_what_was_answered(tmp_path, load, keep, share):
    ids = max(IDS_MIN, load["ids"])
    room = CALLERS * MOST_TOKENS if share == 1 else 0
    budget = round(ids * CALL_TOKENS * share) + room
    with two_gateways(tmp_path) as (one, two, again):
        key = made_key(two.admin, tokens_per_day=budget)
        wait_until(lambda: one.knows(key["key"]), 5, "the key at the other gateway")
        midway, seen = asyncio.Event(), []

        async def killed():
            await midway.wait()
            one.process.kill()
            await asyncio.sleep(AWAY_S)
            return await asyncio.to_thread(again)

        async with client_session() as session:
            caller = Caller(session, [one.url, two.url], key["key"], patience_s=60)

            async def ask(n):
                if n == ids // 2:
                    midway.set()
                return await caller.ask(f"echo {n}")

            watching = asyncio.create_task(spending(session, two.url, key["id"], seen))
            killing = asyncio.create_task(killed())
            turns = await closed_loop(ask, callers=CALLERS, more=lambda n: n < ids)
            heir = await killing
            rest = await to_the_last(caller, ids)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        spent = charged(two.admin, key["id"], "total_tokens")
        requests = charged(heir.admin, key["id"])
    row = account(turns, rest, requests) | {"budget": budget, "spent": spent}
    keep(f"pool_budget_{'enough' if share == 1 else 'too_little'}", row)

    assert spent == row["used"] == CALL_TOKENS * row["answered"]
    assert max([spent, *seen]) <= budget
    assert row["failures"] == row["lost"] == row["duplicated"] == row["wrong"] == 0
    assert row["refused"] == 0 or share < 1
    assert budget - spent < MOST_TOKENS


def account(turns, rest, requests):
    """What the clients have seen; ``rest``: those that came after the drill, to the last token."""
    every = [*turns, *rest]
    return counts(every, requests) | {
        "failures": sum(turn.status not in (200, 429) for turn in every),
        "answered": sum(turn.status == 200 for turn in every),
        "refused": sum(turn.status == 429 for turn in turns),
        "used": sum(turn.tokens for turn in every),
        "asked_again": sum(turn.tries > 1 for turn in turns),
        "replayed": sum(turn.mark == "hit" for turn in turns),
        "p99_during_ms": p99_ms(turns),
    }


async def spending(session, url, key_id, seen):
    """Note what is spent, ten times a second."""
    while True:
        async with session.get(f"{url}/v1/usage", headers=ADMIN) as answer:
            lines = (await answer.json())["data"]
        seen.append(sum(line["total_tokens"] for line in lines if line["key"] == key_id))
        await asyncio.sleep(0.1)


async def to_the_last(caller, first):
    """Ask until the budget is used up, beyond what the dead gateway had held back."""
    await asyncio.sleep(LEASE_S)
    turns = []
    while not turns or turns[-1].status == 200:
        turns.append(await caller.ask(f"echo {first + len(turns)}"))
    return turns
