"""How usage is charged: with a budget at once, without one every second, and each call once."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from redis_server import redis_server
from typing_extensions import override

from sage_flink.common import StoreUnavailable
from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.requests.response import Response
from sage_gateway.tenants.account_balances import AccountBalances
from sage_gateway.tenants.keys import Keys
from sage_gateway.tenants.limits import DAY_S, Cost, LimitRefusal, period
from sage_gateway.tenants.memory import MemoryTenantStore
from sage_gateway.tenants.redis import CHARGES_A_SCRIPT, RedisTenantStore
from sage_gateway.tenants.sqlite import SqliteTenantStore
from sage_gateway.tenants.store_protocol import Charge, Hold, MeteredCall
from sage_gateway.tenants.tenants import Tenants
from sage_gateway.tenants.usage_charge import UsageCharge

PAYER = ("acme", "key-1", "talk", "")
ANSWER = Response(200, b"{}", used={"in": 3, "out": 2})


class LosesReplies(MemoryTenantStore):
    """Adds charges; a batch of the same name once. The reply is lost while ``losing``."""

    losing = True

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    @override
    async def add(self, charges: Sequence[Charge], batch: str = "") -> None:
        if batch not in self.names:
            await super().add(charges)
        self.names.append(batch)
        await asyncio.sleep(0)
        if self.losing:
            raise StoreUnavailable("timed out")


def call(limits: LimitsSpec) -> MeteredCall:
    return MeteredCall("key-1", limits, "acme", LimitsSpec(), Cost(60, 90))


async def usage(tenants: Tenants) -> list[tuple[int, int, int]]:
    (yesterday, _), (today, _) = period(time.time() - DAY_S), period(time.time())
    found = await tenants.store.usage(yesterday, today)
    return [(one.requests, one.prompt_tokens, one.completion_tokens) for one in found]


@pytest.fixture
async def tenants(tmp_path: Path) -> AsyncIterator[Tenants]:
    """Usage in a SQLite file."""
    found = Tenants(Keys([]), SqliteTenantStore(tmp_path / "tenants.sqlite"))
    await found.open()
    yield found
    await found.close()


async def test_a_flush_whose_reply_was_lost_is_counted_once() -> None:
    store = LosesReplies()
    tenants = Tenants(Keys([]), store)

    tenants.count(PAYER, (1, 3, 2))
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await tenants.flush()
        tenants.count(PAYER, (1, 3, 2))
    store.losing = False
    await tenants.flush()
    await tenants.flush()

    assert await usage(tenants) == [(4, 12, 8)]
    assert len(store.names) == 5
    assert len(set(store.names)) == 2


async def test_concurrent_flushes_write_each_count_once() -> None:
    store = LosesReplies()
    store.losing = False
    tenants = Tenants(Keys([]), store)
    tenants.count(PAYER, (1, 3, 2))

    await asyncio.gather(*(tenants.flush() for _ in range(3)))

    assert await usage(tenants) == [(1, 3, 2)]
    assert len(store.names) == 1


async def test_a_full_log_counts_no_charge_of_a_flush_twice(tenants: Tenants) -> None:
    assert isinstance(tenants.store, SqliteTenantStore)
    for n in range(9):
        tenants.count(("acme", "key-1", "talk", f"{n}"), (1, 3, 2))
    log = tenants.store._log
    usual, log._bytes_max = log._bytes_max, 200

    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            await tenants.flush()
    log._bytes_max = usual
    await tenants.flush()

    assert await usage(tenants) == [(1, 3, 2)] * 9


async def test_a_call_with_rates_only_needs_no_task_and_no_write_and_corrects_the_rate(
    tenants: Tenants,
) -> None:
    assert isinstance(tenants.store, SqliteTenantStore)
    asked = call(LimitsSpec(tokens_per_minute=100))
    held = await tenants.store.admit(asked)
    assert isinstance(held, Hold)
    tasks = len(asyncio.all_tasks())

    await UsageCharge(tenants, PAYER, held, asked.cost, b"").response(ANSWER)

    assert len(asyncio.all_tasks()) == tasks
    assert tenants.store._log.bytes_waiting == 0
    assert isinstance(await tenants.store.admit(asked), Hold)
    assert isinstance(await tenants.store.admit(asked), LimitRefusal)
    await tenants.flush()
    assert await usage(tenants) == [(1, 3, 2)]


async def test_a_call_with_a_budget_is_written_before_its_answer(tenants: Tenants) -> None:
    assert isinstance(tenants.store, SqliteTenantStore)
    asked = call(LimitsSpec(tokens_per_day=95))
    held = await tenants.store.admit(asked)
    assert isinstance(held, Hold)

    await UsageCharge(tenants, PAYER, held, asked.cost, b"").response(ANSWER)

    assert tenants.store._log.bytes_waiting > 0
    assert await usage(tenants) == [(1, 3, 2)]
    assert isinstance(await tenants.store.admit(asked), Hold)


@pytest.mark.service
async def test_a_flush_to_redis_whose_reply_was_lost_is_counted_once(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url:
        store = RedisTenantStore(url, lease_s=5.0, timeout_s=20.0)
        run = store._redis.run

        async def lose_the_reply(*script: Any) -> None:
            await run(*script)
            raise StoreUnavailable("timed out")

        tenants = Tenants(Keys([]), store)
        await tenants.open()
        for n in range(CHARGES_A_SCRIPT + 1):
            tenants.count(("acme", "key-1", "talk", f"{n}"), (1, 3, 2))
        store._redis.run = lose_the_reply  # type: ignore[method-assign]
        with pytest.raises(StoreUnavailable):
            await tenants.flush()
        store._redis.run = run  # type: ignore[method-assign]
        tenants.count(PAYER, (1, 3, 2))
        await tenants.flush()

        assert await usage(tenants) == [(1, 3, 2)] * (CHARGES_A_SCRIPT + 2)
        await tenants.close()


def test_an_account_without_limits_is_not_tracked_though_its_key_was_read_from_a_store() -> None:
    balances = AccountBalances(time.time)
    asked = call(LimitsSpec.model_validate_json(b"{}"))

    assert balances.admit(asked) is None
    balances.release(asked, 5)

    assert balances._accounts == {}
