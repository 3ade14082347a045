"""The contract of every tenants' store."""

import asyncio
import time
from typing import Any

import pytest
from msgspec.structs import replace

from sage_flink.common import StoreUnavailable
from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.tenants.keys import Key, Scope
from sage_gateway.tenants.limits import Cost, LimitRefusal
from sage_gateway.tenants.store_protocol import Charge, Hold, MeteredCall, TenantStore, UsageKey

NOON_S = 1_795_521_600.0  # 2026-11-24 12:00 UTC
DAY = 20261124
NONE = LimitsSpec()


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = NOON_S

    def __call__(self) -> float:
        return self.now_s


def key(id_: str = "key-1") -> Key:
    limits = LimitsSpec(tokens_per_day=7)
    scopes = frozenset({Scope.INFER, Scope.READ})
    return Key(id_, "d" * 64, "acme", scopes, name="ours", limits=limits, made_s=5)


def call(
    *, most: int = 10, likely: int | None = None, record_key: bytes = b"", **limits: int
) -> MeteredCall:
    cost = Cost(most if likely is None else likely, most)
    return MeteredCall("key-1", LimitsSpec(**limits), "acme", NONE, cost, record_key)


def charge(tokens: int, *, day: int = DAY, job: str = "", requests: int = 1) -> Charge:
    return Charge(UsageKey(day, "acme", "key-1", "talk", job), requests, tokens - 1, 1)


async def is_admitted(store: TenantStore, what: MeteredCall) -> bool:
    return isinstance(await store.admit(what), Hold)


async def spend(store: TenantStore, what: MeteredCall, tokens: int, *, day: int = DAY) -> None:
    held = await store.admit(what)
    assert isinstance(held, Hold), held
    await store.settle(held, charge(tokens, day=day))


async def release(store: TenantStore, held: Hold, tokens: int = 0) -> None:
    """Release a hold, and wait for a store that does so in the background."""
    store.release(held, tokens)
    await asyncio.gather(*getattr(store, "_releases", ()))


async def total_usage(store: TenantStore) -> int:
    return sum(one.tokens for one in await store.usage(DAY, DAY + 1))


async def test_an_added_key_is_listed_until_it_is_deleted(tenants: Any) -> None:
    async with tenants() as store:
        await store.add_key(key())
        await store.add_key(key("key-2"))

        assert set(await store.keys()) == {key(), key("key-2")}
        assert await store.delete_key("key-2") is True
        assert await store.delete_key("key-2") is False
        assert await store.keys() == (key(),)


async def test_keys_and_usage_survive_a_restart_but_holds_do_not(
    tenants: Any, request: pytest.FixtureRequest
) -> None:
    limit = {"tokens_per_day": 100}
    async with tenants(clock=Clock()) as store:
        await store.add_key(key())
        await spend(store, call(**limit), 8)
        await store.admit(call(most=90, **limit))

    async with tenants(clock=Clock()) as store:
        durable = "memory" not in request.node.name
        assert await store.keys() == ((key(),) if durable else ())
        assert await total_usage(store) == (8 if durable else 0)
        assert await is_admitted(store, call(most=93, **limit)) is not durable
        assert await is_admitted(store, call(most=92, **limit)) is durable


@pytest.mark.parametrize("limit", ["tokens_per_day", "tokens_per_month"])
async def test_a_budget_holds_the_maximum_and_charges_what_was_used(
    tenants: Any, limit: str
) -> None:
    async with tenants(clock=Clock()) as store:
        first = await store.admit(call(most=60, **{limit: 100}))
        assert isinstance(first, Hold)

        refusal = await store.admit(call(most=41, **{limit: 100}))
        assert refusal == LimitRefusal("key key-1", limit, 100, 1.0)
        assert await is_admitted(store, call(most=40, **{limit: 100}))
        await store.settle(first, charge(20))

        assert await is_admitted(store, call(most=40, **{limit: 100}))
        assert await total_usage(store) == 20


async def test_a_call_without_an_answer_is_not_charged(tenants: Any) -> None:
    async with tenants(clock=Clock()) as store:
        held = await store.admit(call(most=100, tokens_per_day=100))
        assert isinstance(held, Hold)

        await release(store, held)

        assert await is_admitted(store, call(most=100, tokens_per_day=100))
        assert await total_usage(store) == 0


async def test_a_budget_is_full_again_in_the_next_period(tenants: Any) -> None:
    clock = Clock()
    async with tenants(clock=clock) as store:
        await spend(store, call(tokens_per_day=10, tokens_per_month=15), 10)

        refused = await store.admit(call(most=1, tokens_per_day=10, tokens_per_month=15))
        clock.now_s += 12 * 3600
        next_day = await store.admit(call(most=6, tokens_per_day=10, tokens_per_month=15))

        assert refused == LimitRefusal("key key-1", "tokens_per_day", 10, 12 * 3600)
        assert next_day == LimitRefusal("key key-1", "tokens_per_month", 15, 6 * 86_400)
        assert await is_admitted(store, call(most=5, tokens_per_day=10, tokens_per_month=15))
        clock.now_s += 6 * 86_400
        assert await is_admitted(store, call(most=5, tokens_per_day=10, tokens_per_month=15))


async def test_limits_of_a_tenant_apply_to_all_its_keys(tenants: Any) -> None:
    async with tenants(clock=Clock()) as store:
        one = replace(call(most=60), tenant_limits=LimitsSpec(tokens_per_day=100))
        other = replace(one, key="key-2")
        assert await is_admitted(store, one)

        assert await store.admit(other) == LimitRefusal("tenant acme", "tokens_per_day", 100, 1.0)
        assert await is_admitted(store, replace(other, tenant="zeta"))


async def test_requests_per_minute_are_replenished_one_by_one(tenants: Any) -> None:
    clock = Clock()
    async with tenants(clock=clock) as store:
        ask = call(requests_per_minute=6)
        assert [await is_admitted(store, ask) for _ in range(7)] == [True] * 6 + [False]

        refused = await store.admit(ask)
        clock.now_s += 10
        after = [await is_admitted(store, ask) for _ in range(2)]

        assert refused == LimitRefusal("key key-1", "requests_per_minute", 6, 10.0)
        assert after == [True, False]


async def test_tokens_per_minute_are_estimated_and_then_corrected(tenants: Any) -> None:
    clock = Clock()
    async with tenants(clock=clock) as store:
        ask = call(most=400, likely=60, tokens_per_minute=100)
        held = await store.admit(ask)
        assert isinstance(held, Hold)
        assert await store.admit(ask) == LimitRefusal("key key-1", "tokens_per_minute", 100, 12.0)

        await store.settle(held, charge(10))
        assert await is_admitted(store, ask)
        large = replace(ask, cost=Cost(300, 400))
        assert not await is_admitted(store, large)
        clock.now_s += 60
        assert await is_admitted(store, large)
        clock.now_s += 60
        assert not await is_admitted(store, ask)


async def test_a_released_call_corrects_the_rate_and_is_not_charged(tenants: Any) -> None:
    async with tenants(clock=Clock()) as store:
        ask = call(most=400, likely=60, tokens_per_minute=100)
        held = await store.admit(ask)
        assert isinstance(held, Hold)

        await release(store, held, 50)

        assert await store.admit(ask) == LimitRefusal("key key-1", "tokens_per_minute", 100, 6.0)
        assert await total_usage(store) == 0


async def test_usage_is_summed_by_day_tenant_key_model_and_job(tenants: Any) -> None:
    async with tenants(clock=Clock()) as store:
        await store.add([charge(5, job="b"), charge(7, job="a"), charge(5, job="b")])
        await store.add([charge(2, day=DAY - 1), charge(9, day=DAY + 1)])

        found = await store.usage(DAY - 1, DAY)

        row = UsageKey(DAY, "acme", "key-1", "talk", "b")
        assert [one.tokens for one in found] == [2, 7, 10]
        assert found[2] == Charge(row, 2, 8, 2)


async def test_added_charges_count_against_the_budget(tenants: Any) -> None:
    async with tenants(clock=Clock()) as store:
        await store.add([charge(95)])

        assert not await is_admitted(store, call(most=6, tokens_per_day=100))
        assert await is_admitted(store, call(most=5, tokens_per_day=100))


async def test_concurrent_calls_never_exceed_the_budget(tenants: Any) -> None:
    async with tenants(clock=Clock()) as store:

        async def one() -> int:
            held = await store.admit(call(most=9, tokens_per_day=500))
            if isinstance(held, LimitRefusal):
                return 0
            await asyncio.sleep(0)
            await store.settle(held, charge(7))
            return 7

        spent = sum(await asyncio.gather(*(one() for _ in range(200))))

        assert spent == await total_usage(store) <= 500


async def test_a_charge_by_a_dead_gateway_is_reversed_when_its_call_is_repeated(
    tenants: Any,
) -> None:
    ask = call(most=60, record_key=b"the call", tokens_per_day=100)
    async with tenants(clock=Clock(), killed=True) as store:
        await spend(store, ask, 60)

    async with tenants(clock=Clock(), killed=True) as store:
        await spend(store, ask, 50)
        assert await total_usage(store) == 50

    async with tenants(clock=Clock(), killed=True) as store:
        held = await store.admit(ask)
        assert isinstance(held, Hold)
        await release(store, held)
        assert await total_usage(store) == 0

    async with tenants(clock=Clock(), killed=True) as store:
        await spend(store, ask, 40)
        assert await total_usage(store) == 40


async def test_a_charge_by_a_gateway_that_was_closed_is_not_reversed(
    tenants: Any, request: pytest.FixtureRequest
) -> None:
    ask = call(most=60, record_key=b"the call", tokens_per_day=200)
    async with tenants(clock=Clock()) as store:
        await spend(store, ask, 60)

    async with tenants(clock=Clock()) as store:
        await spend(store, ask, 50)

        assert await total_usage(store) == (50 if "memory" in request.node.name else 110)


async def test_a_call_repeated_in_the_same_gateway_life_is_charged_again(tenants: Any) -> None:
    ask = call(record_key=b"the call", tokens_per_day=100)
    async with tenants(clock=Clock()) as store:
        await spend(store, ask, 4)
        await spend(store, ask, 5)

        assert await total_usage(store) == 9


@pytest.mark.parametrize(
    "tenants", [pytest.param("redis", marks=pytest.mark.service)], indirect=True
)
async def test_holds_of_a_dead_gateway_expire_and_its_late_charge_is_refused(
    tenants: Any,
) -> None:
    ask = call(most=60, tokens_per_day=100)
    async with tenants(clock=Clock()) as dead, tenants(clock=Clock()) as alive:
        held = await dead.admit(ask)
        assert isinstance(held, Hold)
        assert not await is_admitted(alive, ask)
        dead._renewing.cancel()

        end = time.monotonic() + 10
        while not await is_admitted(alive, ask):
            assert time.monotonic() < end
            await asyncio.sleep(0.1)
        with pytest.raises(StoreUnavailable, match="away for too long"):
            await dead.settle(held, charge(60))
        assert await total_usage(alive) == 0
