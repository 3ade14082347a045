"""Tenants' store in Redis, shared by several gateways.

An account is a hash. The holds of each gateway are a field of their own in it, and count as long as
the lease of that gateway: when a gateway dies, its holds are released within ``lease_s`` / 2. That
is before the lease of its calls in the idempotency store expires, so the gateway that takes them
over finds it dead. A gateway holds in the name of its current *life*. After an absence longer than
its lease it starts a new life, and its earlier holds can no longer be charged. It also does so when
a step got no reply: whatever that step may have held ends with the old life. Each step is one Lua
script; all keys share a hash tag.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from pydantic import TypeAdapter
from typing_extensions import override

from sage_flink.common import StoreUnavailable
from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.storage.redis import TIMEOUT_S, RedisClient, Server
from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.limits import LimitRefusal, days, period, remaining_s
from sage_gateway.tenants.scripts import ADD, ADMIT, SETTLE
from sage_gateway.tenants.store_protocol import (
    Charge,
    Hold,
    MeteredCall,
    TenantStore,
    UsageKey,
    account_names,
    sum_charges,
)

PREFIX = "{sage:tenants}:"
ACCOUNT, LEASE, USAGE, CHARGE, BATCH = (
    PREFIX + name for name in ("account:", "lease:", "used:", "once:", "batch:")
)
KEYS, VERSION = PREFIX + "keys", PREFIX + "version"
LIMITS = ("requests_per_minute", "tokens_per_minute", "tokens_per_month", "tokens_per_day")
CHARGES_A_SCRIPT = 500
CHARGE_TTL_S = 600
#: The longest time until a batch is added again whose reply was lost.
BATCH_TTL_S = 3600
USAGE_TTL_S = 400 * 86_400

KEY = TypeAdapter(Key)


class RedisTenantStore(TenantStore):
    """The Redis at ``server``."""

    def __init__(
        self,
        server: Server,
        *,
        lease_s: float,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._redis = RedisClient(server, "the tenants' Redis", timeout_s=timeout_s)
        self._lease_ms = round(lease_s * 500)
        self._clock = clock
        self._life = ""
        #: Calls in flight by the life that holds their cost.
        self._calls: Counter[str] = Counter()
        self._renewing: asyncio.Task[None] | None = None
        self._releases: set[asyncio.Task[None]] = set()
        self._keys_version: bytes | None = b"not read"
        self._keys: tuple[Key, ...] = ()

    @override
    async def open(self) -> None:
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="tenants lease")
        await self._renew_leases()

    @override
    async def keys(self) -> tuple[Key, ...]:
        async with self._redis.client() as client:
            version = await client.get(VERSION)
            if version != self._keys_version:
                bodies = await client.hvals(KEYS)  # type: ignore[misc]
                self._keys = tuple(KEY.validate_json(body) for body in bodies)
                self._keys_version = version
        return self._keys

    @override
    async def add_key(self, key: Key) -> None:
        async with self._redis.client() as client, client.pipeline() as transaction:
            transaction.hset(KEYS, key.id, KEY.dump_json(key).decode())
            transaction.incr(VERSION)
            await transaction.execute()

    @override
    async def delete_key(self, key_id: str) -> bool:
        async with self._redis.client() as client, client.pipeline() as transaction:
            transaction.hdel(KEYS, key_id)
            transaction.incr(VERSION)
            return bool((await transaction.execute())[0])

    @override
    async def admit(self, call: MeteredCall) -> Hold | LimitRefusal:
        if not self._life:
            await self._renew_leases()
        now_s, life = self._clock(), self._life
        day, month = period(now_s)
        limits = [n for _, spec in call.accounts() for n in _numbers(spec)]
        fixed = [LEASE, life, repr(now_s), day, month, call.cost.likely, call.cost.most]
        names = [name for name, _ in call.accounts()]
        keys = [*(ACCOUNT + name for name in names), LEASE + life, *_charge_key(call)]
        with self._end_life_on_error(life):
            result, *rest = await self._redis.run(ADMIT, keys, [*fixed, *limits])
        if result == 0:
            self._calls[life] += 1
            return Hold(call, life)
        if result == 2:
            self._end_life(life)
            raise StoreUnavailable("this gateway was away for too long; ask again")
        account, limit, allowed, wait_ms = rest
        name = LIMITS[limit - 1]
        wait_s = wait_ms / 1000 if wait_ms >= 0 else remaining_s(name, now_s)
        return LimitRefusal(names[account - 1], name, allowed, wait_s)

    @override
    async def settle(self, held: Hold, charge: Charge) -> None:
        if not await self._end_hold(held, charge.tokens, _arguments(charge)):
            raise StoreUnavailable("this gateway was away for too long; ask again")

    @override
    def release(self, held: Hold, tokens: int = 0) -> None:
        task = asyncio.create_task(self._release(held, tokens))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    @override
    async def add(self, charges: Sequence[Charge], batch: str = "") -> None:
        # Atomic up to CHARGES_A_SCRIPT; of more, the first ones may be charged before an error.
        # Added again, a script that has run changes nothing.
        day, month = period(self._clock())
        batch = batch or secrets.token_hex(8)
        for at in range(0, len(charges), CHARGES_A_SCRIPT):
            some = charges[at : at + CHARGES_A_SCRIPT]
            names = [n for one in some for n in account_names(one.row.tenant, one.row.key)]
            arguments = [word for one in some for word in _arguments(one)]
            keys = [f"{BATCH}{batch}:{at}", *(ACCOUNT + name for name in names)]
            await self._redis.run(ADD, keys, [day, month, BATCH_TTL_S, *arguments])

    @override
    async def usage(self, first_day: int, last_day: int) -> tuple[Charge, ...]:
        all_days = days(first_day, last_day)
        async with self._redis.client() as client, client.pipeline(transaction=False) as pipeline:
            for day in all_days:
                pipeline.hgetall(f"{USAGE}{day}")
            pages = await pipeline.execute()
        by_day = zip(all_days, pages, strict=True)
        return sum_charges([charge for day, page in by_day for charge in _charges(day, page)])

    @override
    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, *self._releases, return_exceptions=True)
            with contextlib.suppress(StoreUnavailable):  # the leases expire
                await self._end_leases()
        await self._redis.close()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            with contextlib.suppress(StoreUnavailable):  # retried; requests report it
                await self._renew_leases()

    async def _renew_leases(self) -> None:
        """Renew the leases of all lives that have calls; start a new life if there is none."""
        self._calls = +self._calls
        async with self._redis.client() as client:
            for life in {*self._calls, self._life} - {""}:
                if not await client.pexpire(LEASE + life, self._lease_ms):
                    self._end_life(life)
            if not self._life:
                life = secrets.token_hex(8)
                await client.set(LEASE + life, 1, px=self._lease_ms)
                self._life = life

    async def _end_leases(self) -> None:
        """End the holds; the charges of an idle life stay irreversible: its answers were sent."""
        async with self._redis.client() as client:
            for life in {*self._calls, self._life}:
                idle = life == self._life and not self._calls[life]
                await client.expire(LEASE + life, CHARGE_TTL_S if idle else 0)

    async def _release(self, held: Hold, tokens: int) -> None:
        with contextlib.suppress(StoreUnavailable):  # the hold ends with its life
            await self._end_hold(held, tokens, [])

    async def _end_hold(self, held: Hold, tokens: int, charge: Sequence[str | int]) -> bool:
        """End a hold and charge ``charge``, if any; whether the life of the hold still lasted."""
        names = [name for name, _ in held.call.accounts()]
        day, month = period(self._clock())
        keys = [*(ACCOUNT + name for name in names), LEASE + held.by, *_charge_key(held.call)]
        cost = held.call.cost
        fixed = [LEASE, held.by, cost.likely - tokens, cost.most, CHARGE_TTL_S, day, month]
        with self._end_life_on_error(held.by):
            self._calls[held.by] -= 1
            return bool(await self._redis.run(SETTLE, keys, [*fixed, *charge]))

    @contextlib.contextmanager
    def _end_life_on_error(self, life: str) -> Iterator[None]:
        """A step without a reply may have held a cost that is never settled: end its life."""
        try:
            yield
        except BaseException:
            self._end_life(life)
            raise

    def _end_life(self, life: str) -> None:
        """Hold no more in this life; its lease and its holds end with its last call."""
        if self._life == life:
            self._life = ""


def _charge_key(call: MeteredCall) -> list[str]:
    return [CHARGE + call.record_key.hex()] if call.record_key else []


def _numbers(limits: LimitsSpec) -> list[int]:
    """The limits in the order of LIMITS; -1: not limited."""
    found = (getattr(limits, name) for name in LIMITS)
    return [-1 if number is None else number for number in found]


def _arguments(charge: Charge) -> list[str | int]:
    """A charge as arguments of a script: key prefix, TTL, day, month, row, counts."""
    row = charge.row
    name = json.dumps([row.tenant, row.key, row.model, row.job])
    counts = (charge.requests, charge.prompt_tokens, charge.completion_tokens)
    return [USAGE, USAGE_TTL_S, row.day, row.day // 100, name, *counts]


def _charges(day: int, page: dict[bytes, bytes]) -> list[Charge]:
    """The charges of one day; a field's name is a letter for the count, and the row."""
    places = {b"r": 0, b"p": 1, b"c": 2}
    counts: dict[bytes, list[int]] = {}
    for name, count in page.items():
        counts.setdefault(name[1:], [0, 0, 0])[places[name[:1]]] = int(count)
    return [Charge(UsageKey(day, *json.loads(name)), *three) for name, three in counts.items()]
