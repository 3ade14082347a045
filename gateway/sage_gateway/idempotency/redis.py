"""Idempotency store in Redis, shared by several gateways.

A claim is a lease that its owner renews. When the owner dies, the lease expires after ``lease_s``,
and the next gateway that claims the key sends the call to an engine. Each step is one Lua script,
so reading and writing are atomic. All keys share a hash tag: a Redis cluster keeps them on one
node. An answer survives a crash of the gateway; whether it survives a crash of Redis is a setting
of Redis (``appendonly``).
"""

import asyncio
import contextlib
import secrets
import time

from typing_extensions import override

from sage_flink.common import StoreUnavailable
from sage_gateway.idempotency.store_protocol import (
    ROW_BYTES,
    IdempotencyStore,
    RecordedAnswer,
    RunningCall,
)
from sage_gateway.storage.redis import TIMEOUT_S, RedisClient, Server

PREFIX = b"{sage:ledger}:"
ANSWER, LEASE, ORDER, SIZES, TOTAL = (
    PREFIX + name for name in (b"answer:", b"lease:", b"order", b"sizes", b"total")
)
OWNER_BYTES = 16
DIGEST_BYTES = 16
LEASES_A_SCRIPT = 500

# KEYS answer, lease; ARGV owner+digest, lease in ms.
CLAIM = """
local answer = redis.call('GET', KEYS[1])
if answer then return {1, answer} end
if redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then return {0, ''} end
return {2, redis.call('GET', KEYS[2])}
"""
# KEYS answer, lease, order, sizes, total; ARGV key, answer, ttl in ms, now in us, size, bytes_max,
# prefix of answers, owner. Then the oldest answers are evicted, 64 at most a call.
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
# KEYS leases; ARGV owner, lease in ms (0 ends the leases).
RENEW = """
for _, key in ipairs(KEYS) do
  if string.sub(redis.call('GET', key) or '', 1, 16) == ARGV[1] then
    redis.call('PEXPIRE', key, ARGV[2])
  end
end
"""


class RedisIdempotencyStore(IdempotencyStore):
    """The Redis at ``server``."""

    def __init__(
        self,
        server: Server,
        *,
        ttl_s: float,
        bytes_max: int,
        lease_s: float,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._redis = RedisClient(server, "the idempotency store's Redis", timeout_s=timeout_s)
        self._ttl_ms = round(ttl_s * 1000)
        self._bytes_max = bytes_max
        self._lease_s = lease_s
        self._owner = secrets.token_bytes(OWNER_BYTES)
        self._claims: set[bytes] = set()
        self._renewing: asyncio.Task[None] | None = None
        self._bytes = 0
        self._evictions = 0

    @property
    @override
    def bytes_held(self) -> int:
        return self._bytes

    @property
    @override
    def evictions(self) -> int:
        return self._evictions

    @override
    async def open(self) -> None:
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(), name="idempotency leases")
        await self._read_total()

    @override
    async def claim(self, key: bytes, digest: bytes) -> RecordedAnswer | RunningCall | None:
        lease = self._owner + digest
        keys = [ANSWER + key, LEASE + key]
        kind, value = await self._redis.run(CLAIM, keys, [lease, self._lease_ms])
        if kind == 0:
            self._claims.add(key)
            return None
        if kind == 2:
            return RunningCall(value[OWNER_BYTES:])
        return RecordedAnswer(
            value[1 : 1 + DIGEST_BYTES], value[:1] == b"s", value[1 + DIGEST_BYTES :]
        )

    @override
    async def record(self, key: bytes, answer: RecordedAnswer) -> None:
        packed = (b"s" if answer.stream else b"w") + answer.digest + answer.body
        size = len(answer.body) + ROW_BYTES
        now_us = time.time_ns() // 1000
        keys = [ANSWER + key, LEASE + key, ORDER, SIZES, TOTAL]
        bounds = [self._ttl_ms, now_us, size, self._bytes_max, ANSWER, self._owner]
        total, evictions = await self._redis.run(RECORD, keys, [key, packed, *bounds])
        self._claims.discard(key)
        self._bytes = total
        self._evictions += evictions

    @override
    async def release(self, key: bytes) -> None:
        # The script leaves a lease that expired, and that another gateway has by now, alone.
        if key in self._claims:
            self._claims.discard(key)
            await self._redis.run(RENEW, [LEASE + key], [self._owner, 0])

    @override
    async def close(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable):  # leases expire
            await self._set_leases(0)
        self._claims.clear()
        await self._redis.close()

    @property
    def _lease_ms(self) -> int:
        return round(self._lease_s * 1000)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            with contextlib.suppress(StoreUnavailable):  # retried; requests report it
                await self._set_leases(self._lease_ms)
                await self._read_total()

    async def _set_leases(self, lease_ms: int) -> None:
        """Let every lease of this gateway expire in ``lease_ms`` from now."""
        keys = [LEASE + key for key in sorted(self._claims)]
        for at in range(0, len(keys), LEASES_A_SCRIPT):
            some = keys[at : at + LEASES_A_SCRIPT]
            await self._redis.run(RENEW, some, [self._owner, lease_ms])

    async def _read_total(self) -> None:
        """Read the bytes of all answers; concurrent results of ``record`` may be out of order."""
        async with self._redis.client() as client:
            self._bytes = int(await client.get(TOTAL) or 0)
