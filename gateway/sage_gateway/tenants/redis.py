"""Tenants in Redis: what several gateways share.

An account is a hash; what each gateway holds in it stands in a field of its own, and counts as long
as that gateway's lease does: when a gateway dies, all it held is free within ``lease_s`` / 2. That
is before the ledger's lease of its calls ends, so whoever asks them again finds it dead. A gateway
holds in the name of its present *life*: one that was away for longer than its lease begins a new
one, and what it held before can no longer be charged; so it does when a step had no reply, so that
what was held unknown to it ends. Each step is one script; all keys share a hash tag.
"""

import asyncio
import contextlib
import json
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import redis.asyncio as redis
from pydantic import TypeAdapter
from redis.exceptions import RedisError

from sage_flink.common import StoreUnavailable
from sage_gateway.config.pool_spec import LimitsSpec
from sage_gateway.tenants.keys import Key
from sage_gateway.tenants.limits import Refusal, days, left_s, period
from sage_gateway.tenants.scripts import ADD, ADMIT, SETTLE
from sage_gateway.tenants.store_protocol import Call, Charge, Held, Row, account_names, summed

PREFIX = "{sage:tenants}:"
ACCOUNT, LEASE, USED, ONCE = (PREFIX + name for name in ("account:", "lease:", "used:", "once:"))
KEYS, VERSION = PREFIX + "keys", PREFIX + "version"
LIMITS = ("requests_per_minute", "tokens_per_minute", "tokens_per_month", "tokens_per_day")
CONNECTIONS_MAX = 64
ADDED_AT_ONCE = 500
ONCE_KEPT_S = 600
USED_KEPT_S = 400 * 86_400

KEY = TypeAdapter(Key)


class RedisStore:
    """The Redis at ``url`` (``redis://``, ``rediss://``, ``unix://``)."""

    def __init__(
        self,
        url: str,
        *,
        lease_s: float,
        timeout_s: float = 1.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._url = url
        self._lease_ms = round(lease_s * 500)
        self._timeout_s = timeout_s
        self._clock = clock
        self._life = ""
        self._calls: Counter[str] = Counter()
        self._renewing: asyncio.Task[None] | None = None
        self._redis: redis.Redis | None = None
        self._scripts: dict[str, Any] = {}
        self._seen: tuple[bytes | None, tuple[Key, ...]] = (b"none yet", ())

    async def open(self) -> None:
        """Make the client and begin to renew the lease.

        Raises:
            StoreUnavailable: nobody answers; later calls try again.
        """
        pool = redis.BlockingConnectionPool.from_url(
            self._url,
            max_connections=CONNECTIONS_MAX,
            timeout=self._timeout_s,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
        )
        self._redis = redis.Redis.from_pool(pool)
        scripts = {"admit": ADMIT, "settle": SETTLE, "add": ADD}
        self._scripts = {n: self._redis.register_script(text) for n, text in scripts.items()}
        self._renewing = asyncio.create_task(self._renew(), name="tenants lease")
        await self._live()

    async def keys(self) -> tuple[Key, ...]:
        """As the port has it; read again only when one was made or dropped."""
        async with self._client() as client:
            version = await client.get(VERSION)
            if version != self._seen[0]:
                bodies = await client.hvals(KEYS)  # type: ignore[misc]
                self._seen = version, tuple(KEY.validate_json(body) for body in bodies)
        return self._seen[1]

    async def keep(self, key: Key) -> None:
        """As the port has it, on return Redis has it."""
        async with self._client() as client, client.pipeline() as both:
            both.hset(KEYS, key.id, KEY.dump_json(key).decode())
            both.incr(VERSION)
            await both.execute()

    async def drop(self, key_id: str) -> bool:
        """As the port has it."""
        async with self._client() as client, client.pipeline() as both:
            both.hdel(KEYS, key_id)
            both.incr(VERSION)
            return bool((await both.execute())[0])

    async def admit(self, call: Call) -> Held | Refusal:
        """As the port has it: one round trip."""
        if not self._life:
            await self._live()
        now_s, life = self._clock(), self._life
        day, month = period(now_s)
        limits = [n for _, spec in call.accounts() for n in _numbers(spec)]
        fixed = [LEASE, life, repr(now_s), day, month, call.cost.likely, call.cost.most]
        names = [name for name, _ in call.accounts()]
        keys = [*(ACCOUNT + name for name in names), LEASE + life, *_once(call)]
        with self._sure(life):
            verdict, *rest = await self._run("admit", keys, [*fixed, *limits])
        if verdict == 0:
            self._calls[life] += 1
            return Held(call, life)
        if verdict == 2:
            self._doubt(life)
            raise StoreUnavailable("this gateway was away for too long; ask again")
        which, limit, allowed, wait_ms = rest
        name = LIMITS[limit - 1]
        wait_s = wait_ms / 1000 if wait_ms >= 0 else left_s(name, now_s)
        return Refusal(names[which - 1], name, allowed, wait_s)

    async def settle(self, held: Held, charge: Charge | None) -> None:
        """As the port has it: one round trip."""
        names = [name for name, _ in held.call.accounts()]
        day, month = period(self._clock())
        keys = [*(ACCOUNT + name for name in names), LEASE + held.by, *_once(held.call)]
        cost = held.call.cost
        fixed = [LEASE, held.by, cost.likely, cost.most, ONCE_KEPT_S, day, month]
        with self._sure(held.by):
            self._calls[held.by] -= 1
            done = await self._run("settle", keys, [*fixed, *_spelt(charge)])
        if not done:
            raise StoreUnavailable("this gateway was away for too long; ask again")

    async def add(self, charges: Sequence[Charge]) -> None:
        """As the port has it: all, or beyond ``ADDED_AT_ONCE`` the first of them."""
        day, month = period(self._clock())
        for at in range(0, len(charges), ADDED_AT_ONCE):
            some = charges[at : at + ADDED_AT_ONCE]
            names = [n for one in some for n in account_names(one.row.tenant, one.row.key)]
            spelt = [word for one in some for word in _spelt(one)]
            await self._run("add", [ACCOUNT + name for name in names], [day, month, *spelt])

    async def usage(self, first_day: int, last_day: int) -> tuple[Charge, ...]:
        """As the port has it."""
        asked = days(first_day, last_day)
        async with self._client() as client, client.pipeline(transaction=False) as many:
            for day in asked:
                many.hgetall(f"{USED}{day}")
            pages = await many.execute()
        return summed([c for day, page in zip(asked, pages, strict=True) for c in _read(day, page)])

    async def close(self) -> None:
        """End our holds, as far as Redis can be reached, and the client."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        if self._redis is not None:
            with contextlib.suppress(StoreUnavailable):  # the lease ends by itself
                async with self._client() as client:
                    await client.delete(*(LEASE + life for life in {*self._calls, self._life}))
            await self._redis.aclose()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_ms / 3000)
            with contextlib.suppress(StoreUnavailable):  # tried again; requests tell of it
                await self._live()

    async def _live(self) -> None:
        """Renew the leases of all lives that have calls; begin a new one, where there is none."""
        self._calls = +self._calls
        async with self._client() as client:
            for life in {*self._calls, self._life} - {""}:
                if not await client.pexpire(LEASE + life, self._lease_ms):
                    self._doubt(life)
            if not self._life:
                life = secrets.token_hex(8)
                await client.set(LEASE + life, 1, px=self._lease_ms)
                self._life = life

    @contextlib.contextmanager
    def _sure(self, life: str) -> Iterator[None]:
        """A step without a reply may have held something that nobody will end: doubt its life."""
        try:
            yield
        except BaseException:
            self._doubt(life)
            raise

    def _doubt(self, life: str) -> None:
        """Hold nothing more in this life; its lease, and all it held, ends with its last call."""
        if self._life == life:
            self._life = ""

    async def _run(self, script: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        async with self._client():
            return await self._scripts[script](keys=keys, args=arguments)

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[redis.Redis]:
        """The client; its errors as ours. An address may hold a password: it is not repeated."""
        if self._redis is None:
            raise StoreUnavailable("the tenants' Redis was not opened")
        try:
            yield self._redis
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"the tenants' Redis: {error}; see ledger.url") from error


def _once(call: Call) -> list[str]:
    return [ONCE + call.once.hex()] if call.once else []


def _numbers(limits: LimitsSpec) -> list[int]:
    """The limits in the order of LIMITS, -1 for none."""
    found = (getattr(limits, name) for name in LIMITS)
    return [-1 if number is None else number for number in found]


def _spelt(charge: Charge | None) -> list[str | int]:
    """A charge as scripts take it: where it is summed, day, month, row, counts; none: no words."""
    if charge is None:
        return []
    row = charge.row
    name = json.dumps([row.tenant, row.key, row.model, row.job])
    counts = (charge.requests, charge.prompt_tokens, charge.completion_tokens)
    return [USED, USED_KEPT_S, row.day, row.day // 100, name, *counts]


def _read(day: int, page: dict[bytes, bytes]) -> list[Charge]:
    """The charges of one day; a field is a letter for what is counted, and the row."""
    places = {b"r": 0, b"p": 1, b"c": 2}
    counts: dict[bytes, list[int]] = {}
    for name, count in page.items():
        counts.setdefault(name[1:], [0, 0, 0])[places[name[:1]]] = int(count)
    return [Charge(Row(day, *json.loads(name)), *three) for name, three in counts.items()]
