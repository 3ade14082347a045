"""Response cache store in Redis, shared by several gateways; the next to expire is evicted first.

All keys share a hash tag, so a Redis cluster keeps them on one node.
"""

import time
from collections.abc import Mapping, Sequence

from typing_extensions import override

from sage_gateway.cache.store_protocol import ROW_BYTES, CacheStore
from sage_gateway.storage.redis import RedisClient, Server

PREFIX = b"{sage:cache}:"
ANSWER, ENDS, SIZES, TOTAL = (PREFIX + name for name in (b"answer:", b"ends", b"sizes", b"total"))

# KEYS answer, ends, sizes, total; ARGV key, answer, ttl in s, now in s, size, bytes_max, prefix of
# answers. Then expired answers are evicted, and others while there are too many bytes; 64 at most.
PUT = """
redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3])
redis.call('DECRBY', KEYS[4], redis.call('HGET', KEYS[3], ARGV[1]) or 0)
redis.call('ZADD', KEYS[2], ARGV[4] + ARGV[3], ARGV[1])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[5])
local total = redis.call('INCRBY', KEYS[4], ARGV[5])
for _ = 1, 64 do
  local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  if not first[1] then break end
  if tonumber(first[2]) > tonumber(ARGV[4]) and total <= tonumber(ARGV[6]) then break end
  redis.call('ZREM', KEYS[2], first[1])
  redis.call('DEL', ARGV[7] .. first[1])
  total = redis.call('DECRBY', KEYS[4], redis.call('HGET', KEYS[3], first[1]) or 0)
  redis.call('HDEL', KEYS[3], first[1])
end
"""


# KEYS ends, sizes, total; ARGV prefix of answers, how many. Removes some; how many are left.
CLEAR = """
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[2] - 1)) do
  redis.call('DEL', ARGV[1] .. name)
  redis.call('ZREM', KEYS[1], name)
  redis.call('DECRBY', KEYS[3], redis.call('HGET', KEYS[2], name) or 0)
  redis.call('HDEL', KEYS[2], name)
end
return redis.call('ZCARD', KEYS[1])
"""
ANSWERS_A_SCRIPT = 500


class RedisCacheStore(CacheStore):
    """The Redis at ``server``."""

    def __init__(self, server: Server, *, bytes_max: int) -> None:
        self._redis = RedisClient(server, "the cache's Redis")
        self._bytes_max = bytes_max

    @override
    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        async with self._redis.client() as client:
            found: list[bytes | None] = await client.mget([ANSWER + key for key in keys])
        return found

    @override
    async def put(self, answers: Mapping[bytes, bytes], ttl_s: int) -> None:
        for key, answer in answers.items():
            await self._put(key, answer, ttl_s)

    @override
    async def clear(self) -> None:
        while await self._redis.run(CLEAR, [ENDS, SIZES, TOTAL], [ANSWER, ANSWERS_A_SCRIPT]):
            pass  # in steps: other clients of Redis wait while a script runs

    @override
    async def close(self) -> None:
        await self._redis.close()

    async def _put(self, key: bytes, answer: bytes, ttl_s: int) -> None:
        size, now_s = len(answer) + ROW_BYTES, int(time.time())
        arguments: list[bytes | int] = [key, answer, ttl_s, now_s, size, self._bytes_max, ANSWER]
        await self._redis.run(PUT, [ANSWER + key, ENDS, SIZES, TOTAL], arguments)
