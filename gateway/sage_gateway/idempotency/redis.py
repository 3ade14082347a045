"""Answers in Redis: what several gateways share.

A claim is a lease that its owner renews; when the owner dies it ends by itself, ``lease_s`` later,
and the next gateway to look asks the engine. Each step is one script, so that nothing comes
between looking and writing. All keys share a hash tag, so a Redis cluster keeps them on one node.
An answer outlives a crash of the gateway; how much of a crash of Redis is Redis' own setting
(``appendonly``).
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError

from sage_flink.common import StoreUnavailable
from sage_gateway.idempotency.store_protocol import ROW_BYTES, Recorded, Running

PREFIX = b"{sage:ledger}:"
ANSWER, LEASE, ORDER, SIZES, TOTAL = (
    PREFIX + name for name in (b"answer:", b"lease:", b"order", b"sizes", b"total")
)
OWNER_BYTES = 16
DIGEST_BYTES = 16
RENEWED_AT_ONCE = 500
CONNECTIONS_MAX = 64

# KEYS answer, lease; ARGV owner+digest, lease in ms.
CLAIM = """
local answer = redis.call('GET', KEYS[1])
if answer then return {1, answer} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {0, ''} end
return {2, redis.call('GET', KEYS[2])}
"""
# KEYS answer, lease, order, sizes, total; ARGV key, answer, ttl in ms, now in us, size, bytes_max,
# prefix of answers, owner. Then the oldest go, 64 at most: what remains goes with the next ones.
RECORD = """
if redis.call('SET', KEYS[1], ARGV[2], 'NX', 'PX', ARGV[3]) then
  redis.call('DECRBY', KEYS[5], redis.call('HGET', KEYS[4], ARGV[1]) or 0)
  redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1])
  redis.call('HSET', KEYS[4], ARGV[1], ARGV[5])
  redis.call('INCRBY', KEYS[5], ARGV[5])
end
local lease = redis.call('GET', KEYS[2])
if lease and string.sub(lease, 1, 16) == ARGV[8] then redis.call('DEL', KEYS[2]) end
local total = tonumber(redis.call('GET', KEYS[5]) or '0')
local evicted = 0
while evicted < 64 do
  local oldest = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  if not oldest[1] then break end
  if tonumber(oldest[2]) > ARGV[4] - ARGV[3] * 1000 and total <= tonumber(ARGV[6]) then break end
  redis.call('ZREM', KEYS[3], oldest[1])
  redis.call('DEL', ARGV[7] .. oldest[1])
  total = redis.call('DECRBY', KEYS[5], redis.call('HGET', KEYS[4], oldest[1]) or 0)
  redis.call('HDEL', KEYS[4], oldest[1])
  evicted = evicted + 1
end
return {total, evicted}
"""
# KEYS leases; ARGV owner, lease in ms (0 ends them).
RENEW = """
for _, key in ipairs(KEYS) do
  if string.sub(redis.call('GET', key) or '', 1, 16) == ARGV[1] then
    redis.call('PEXPIRE', key, ARGV[2])
  end
end
"""


class RedisStore:
    """The Redis at ``url`` (``redis://``, ``rediss://``, ``unix://``)."""

    def __init__(
        self, url: str, *, ttl_s: float, bytes_max: int, lease_s: float, timeout_s: float = 1.0
    ) -> None:
        self._url = url
        self._ttl_ms = round(ttl_s * 1000)
        self._bytes_max = bytes_max
        self._lease_s = lease_s
        self._timeout_s = timeout_s
        self._owner = secrets.token_bytes(OWNER_BYTES)
        self._held: set[bytes] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._redis: redis.Redis | None = None
        self._scripts: dict[str, Any] = {}
        self.bytes_held = 0
        self.evicted = 0

    async def open(self) -> None:
        """Make the client and begin to renew leases.

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
        scripts = {"claim": CLAIM, "record": RECORD, "renew": RENEW}
        self._scripts = {n: self._redis.register_script(text) for n, text in scripts.items()}
        self._renewing = asyncio.create_task(self._renew(), name="ledger leases")
        await self._read_total()

    async def claim(self, key: bytes, digest: bytes) -> Recorded | Running | None:
        """As the port has it; a claim is seen by all gateways."""
        lease = self._owner + digest
        keys = [ANSWER + key, LEASE + key]
        kind, value = await self._run("claim", keys, [lease, self._lease_ms])
        if kind == 0:
            self._held.add(key)
            return None
        if kind == 2:
            return Running(value[OWNER_BYTES:])
        return Recorded(value[1 : 1 + DIGEST_BYTES], value[:1] == b"s", value[1 + DIGEST_BYTES :])

    async def record(self, key: bytes, answer: Recorded) -> None:
        """As the port has it, on return Redis has it."""
        packed = (b"s" if answer.stream else b"w") + answer.digest + answer.body
        size = len(answer.body) + ROW_BYTES
        now_us = time.time_ns() // 1000
        keys = [ANSWER + key, LEASE + key, ORDER, SIZES, TOTAL]
        bounds = [self._ttl_ms, now_us, size, self._bytes_max, ANSWER, self._owner]
        held, evicted = await self._run("record", keys, [key, packed, *bounds])
        self._held.discard(key)
        self.bytes_held = held
        self.evicted += evicted

    async def release(self, key: bytes) -> None:
        """As the port has it; a lease that was lost meanwhile is left to its new owner."""
        if key in self._held:
            self._held.discard(key)
            await self._run("renew", [LEASE + key], [self._owner, 0])

    async def close(self) -> None:
        """End our claims, as far as Redis can be reached, and the client."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable):  # leases end by themselves
            for some in _parts(sorted(self._held)):
                await self._run("renew", [LEASE + key for key in some], [self._owner, 0])
        self._held.clear()
        if self._redis is not None:
            await self._redis.aclose()

    @property
    def _lease_ms(self) -> int:
        return round(self._lease_s * 1000)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            with contextlib.suppress(StoreUnavailable):  # tried again; requests tell of it
                for some in _parts(sorted(self._held)):
                    leases = [LEASE + key for key in some]
                    await self._run("renew", leases, [self._owner, self._lease_ms])
                await self._read_total()

    async def _read_total(self) -> None:
        """What all gateways hold together; replies to ``record`` may overtake each other."""
        assert self._redis is not None
        async with _told():
            self.bytes_held = int(await self._redis.get(TOTAL) or 0)

    async def _run(self, script: str, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        if not self._scripts:
            raise StoreUnavailable("the ledger's Redis was not opened")
        async with _told():
            return await self._scripts[script](keys=keys, args=arguments)


@contextlib.asynccontextmanager
async def _told() -> AsyncIterator[None]:
    """Redis' own errors as ours; an address may hold a password, so it is not repeated."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise StoreUnavailable(f"the ledger's Redis: {error}; see ledger.url") from error


def _parts(keys: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [keys[i : i + RENEWED_AT_ONCE] for i in range(0, len(keys), RENEWED_AT_ONCE)]
