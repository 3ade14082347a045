"""Limits of an account, and budgets that stay exact through crashes."""

import asyncio
import random
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.openai.decoding import decode
from sage_gateway.openai.schema import ChatRequest
from sage_gateway.tenants.cost import TEMPLATE_TOKENS, embedding, generation, token_usage
from sage_gateway.tenants.limits import (
    AccountState,
    Cost,
    LimitRefusal,
    charge,
    hold,
    refusal,
    release,
    remaining_s,
    replenish,
)
from sage_gateway.tenants.sqlite import SqliteTenantStore
from sage_gateway.tenants.store_protocol import Charge, MeteredCall, UsageKey

NOON_S = 1_795_521_600.0  # 2026-11-24 12:00 UTC
DAY = 20261124

tokens = st.integers(1, 500)
costs = st.tuples(tokens, tokens).map(lambda two: Cost(min(two), max(two)))


@given(st.lists(st.tuples(st.floats(0, 10), st.booleans()), max_size=200), st.integers(1, 20))
def test_no_minute_sees_more_than_twice_its_requests(
    asks: list[tuple[float, bool]], allowed: int
) -> None:
    limits, account, now_s, at = LimitsSpec(requests_per_minute=allowed), AccountState(), NOON_S, []
    for pause_s, _ in asks:
        now_s += pause_s
        account = replenish(account, limits, now_s)
        if refusal(account, limits, Cost(1, 1), name="k", now_s=now_s) is None:
            account = hold(account, Cost(1, 1))
            at.append(now_s)

    for end in at:
        assert len([t for t in at if end - 60 < t <= end]) <= 2 * allowed


@given(st.integers(1, 100), costs)
def test_a_call_is_admitted_after_the_wait_of_its_refusal(allowed: int, cost: Cost) -> None:
    limits = LimitsSpec(requests_per_minute=allowed, tokens_per_minute=allowed)
    account, now_s = replenish(AccountState(), limits, NOON_S), NOON_S
    while (refused := refusal(account, limits, cost, name="k", now_s=now_s)) is None:
        account = hold(account, cost)

    error = refused.error()
    assert error.retry_after_s is not None
    now_s += error.retry_after_s + 0.001
    assert refusal(replenish(account, limits, now_s), limits, cost, name="k", now_s=now_s) is None


@given(st.lists(st.tuples(costs, st.integers(0, 500))), st.integers(1, 5000))
def test_spent_and_reserved_tokens_never_exceed_a_budget(
    calls: list[tuple[Cost, int]], budget: int
) -> None:
    limits = LimitsSpec(tokens_per_day=budget)
    account, open_ = replenish(AccountState(), limits, NOON_S), []
    for cost, used_ in calls:
        if refusal(account, limits, cost, name="k", now_s=NOON_S) is None:
            account = hold(account, cost)
            open_.append((cost, min(used_, cost.most)))
        if len(open_) > 3:
            over, took = open_.pop(0)
            account = charge(release(account, over, took), took, DAY)

        assert account.tokens_held == sum(cost.most for cost, _ in open_)
        assert account.day_spent + account.tokens_held <= budget


@pytest.mark.parametrize(
    ("limit", "seconds"), [("tokens_per_day", 43_200), ("tokens_per_month", 43_200 + 6 * 86_400)]
)
def test_the_error_of_an_exhausted_budget_has_the_end_of_its_period(
    limit: str, seconds: float
) -> None:
    assert remaining_s(limit, NOON_S) == seconds
    assert LimitRefusal("k", limit, 5, seconds).error().retry_after_s == seconds


def test_a_clock_that_is_set_back_frees_no_budget_and_blocks_no_rate() -> None:
    limits = LimitsSpec(requests_per_minute=1, tokens_per_month=100)
    ahead_s = NOON_S + 40 * 86_400
    account = charge(replenish(AccountState(), limits, ahead_s), 60, 20270103)
    account = hold(account, Cost(1, 1))

    account = charge(replenish(account, limits, NOON_S), 30, DAY)
    later = replenish(account, limits, NOON_S + 60)

    assert account.month_spent == 90
    refused = refusal(later, limits, Cost(5, 20), name="k", now_s=NOON_S + 60)
    assert refused is not None
    assert refused.limit == "tokens_per_month"


def body_of(**fields: Any) -> bytes:
    ask = {"model": "m", "messages": [{"role": "user", "content": "x" * 100}]}
    return orjson.dumps(ask | fields)


@pytest.mark.parametrize(
    ("fields", "completion"),
    [
        ({}, 1000),
        ({"max_tokens": 7}, 7),
        ({"max_tokens": None, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": -1}, 1000),
        ({"max_tokens": 5000}, 1000),
        ({"max_tokens": 7, "n_predict": 2000}, 1000),
        ({"max_tokens": 7, "n": 3}, 21),
        ({"max_tokens": 7, "n": None, "best_of": 2}, 14),
    ],
)
def test_the_most_a_chat_can_cost_is_its_bytes_and_its_completions(
    fields: dict[str, Any], completion: int
) -> None:
    body = body_of(**fields)
    cost = generation(decode(body, ChatRequest), body, 1000)

    assert cost.most == min(len(body) + TEMPLATE_TOKENS + completion, max(1000, completion))
    assert cost.likely <= cost.most


@given(st.dictionaries(st.sampled_from(["in", "out"]), st.integers(0, 10**18)), costs, st.binary())
def test_usage_reported_by_an_engine_is_capped_at_the_hold(
    usage: dict[str, int], cost: Cost, body: bytes
) -> None:
    assert 0 <= token_usage(usage, body=body, deltas=3, most=cost.most).total <= cost.most


@pytest.mark.parametrize(("reported", "charged"), [(4, 9), (9, 9), (12, 12)])
def test_a_stream_is_charged_no_less_than_its_pieces_of_text(reported: int, charged: int) -> None:
    found = token_usage({"in": 3, "out": reported}, body=b"", deltas=9, most=100)

    assert (found.prompt_tokens, found.completion_tokens) == (3, charged)


def test_the_cost_of_embeddings_is_that_of_their_texts() -> None:
    assert embedding(b"x" * 400) == Cost(101, 400 + TEMPLATE_TOKENS)


class Drill:
    """Clients that repeat a call until it is answered or refused, at a gateway that crashes.

    As with the real idempotency store, a recorded answer is never generated again.
    """

    def __init__(self, file: Path, budget: int, dice: random.Random) -> None:
        self.file, self.dice = file, dice
        self.limits = LimitsSpec(tokens_per_day=budget)
        self.store = self.new_store()
        self.recorded: dict[bytes, int] = {}
        self.answered: dict[bytes, int] = {}
        self.up = asyncio.Event()

    def new_store(self) -> SqliteTenantStore:
        return SqliteTenantStore(self.file, clock=lambda: NOON_S)

    async def begin(self) -> None:
        """Start a gateway life."""
        await self.store.open()
        self.up.set()

    async def crash(self) -> None:
        """End the life with all its holds, and start another one.

        Charges on their way to the file are written: the kernel has them.
        """
        self.up.clear()
        dead, self.store = self.store, self.new_store()
        await dead._log.close()
        await dead._thread(dead._tables.close)
        await dead._thread.close()
        await self.begin()

    async def call_until_done(self, record_key: bytes) -> None:
        while record_key not in self.answered:
            if record_key in self.recorded:
                self.answered[record_key] = self.recorded[record_key]
            elif not await self.call_once(record_key):
                return

    async def call_once(self, record_key: bytes) -> bool:
        """Make one call; whether to repeat it. Each step may be the last of this life."""
        await self.up.wait()
        store, most = self.store, self.dice.randint(1, 60)
        call = MeteredCall("k", self.limits, "t", LimitsSpec(), Cost(1, most), record_key)
        held = await store.admit(call)
        if isinstance(held, LimitRefusal):
            return False
        await asyncio.sleep(0)
        if store is not self.store or await self.may_crash(0.05):
            return True
        took = self.dice.randint(1, most)
        if self.dice.random() < 0.1:
            store.release(held)
            return True
        await store.settle(held, Charge(UsageKey(DAY, "t", "k", "m", ""), 1, took, 0))
        if store is not self.store or await self.may_crash(0.05):
            return True
        self.recorded[record_key] = took
        return True

    async def may_crash(self, chance: float) -> bool:
        if self.dice.random() >= chance:
            return False
        await self.crash()
        return True

    async def total_spent(self) -> int:
        return sum(one.tokens for one in await self.store.usage(DAY, DAY))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**32))
def test_spending_equals_the_answers_and_never_exceeds_the_budget_through_crashes(
    budget: int, seed: int
) -> None:
    async def drill(folder: Path) -> tuple[int, int]:
        found = Drill(folder / "t.sqlite", budget, random.Random(seed))
        await found.begin()
        await asyncio.gather(*(found.call_until_done(b"%d" % n) for n in range(60)))
        spent_ = await found.total_spent()
        await found.store.close()
        return spent_, sum(found.answered.values())

    with tempfile.TemporaryDirectory() as folder:
        spent_, answered = asyncio.run(drill(Path(folder)))

    assert spent_ == answered <= budget
