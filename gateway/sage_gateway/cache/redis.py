"""Answers in Redis: what several gateways share. Those that end first go first.

All keys share a hash tag, so a Redis cluster keeps them on one node, and one script puts an answer.
"""

import time

import redis.asyncio as redis
from redis.exceptions import RedisError

from sage_flink.common import StoreUnavailable
from sage_gateway.cache.store_protocol import ROW_BYTES

PREFIX = b"{sage:cache}:"
ANSWER, ENDS, SIZES, TOTAL = (PREFIX + name for name in (b"answer:", b"ends", b"sizes", b"total"))
CONNECTIONS_MAX = 64
TIMEOUT_S = 1.0

# KEYS answer, ends, sizes, total; ARGV key, answer, ttl in s, now in s, size, bytes_max, prefix of
# answers. Then those whose time is over go, and the next ones while there is too much; 64 at most.
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


class RedisStore:
    """The Redis at ``url``; connects when first asked."""

    def __init__(self, url: str, *, bytes_max: int) -> None:
        self._url = url
        self._bytes_max = bytes_max
        self._redis: redis.Redis | None = None

    async def get(self, key: bytes) -> bytes | None:
        """As the port has it."""
        try:
            found: bytes | None = await self._client().get(ANSWER + key)
        except (RedisError, OSError, TimeoutError) as error:
            raise _told(error) from error
        return found

    async def put(self, key: bytes, answer: bytes, ttl_s: int) -> None:
        """As the port has it."""
        size, now_s = len(answer) + ROW_BYTES, int(time.time())
        values: list[bytes | int] = [key, answer, ttl_s, now_s, size, self._bytes_max, ANSWER]
        try:
            put = self._client().register_script(PUT)
            await put(keys=[ANSWER + key, ENDS, SIZES, TOTAL], args=values)
        except (RedisError, OSError, TimeoutError) as error:
            raise _told(error) from error

    async def close(self) -> None:
        """As the port has it."""
        if self._redis is not None:
            await self._redis.aclose()

    def _client(self) -> redis.Redis:
        if self._redis is None:
            pool = redis.BlockingConnectionPool.from_url(
                self._url,
                max_connections=CONNECTIONS_MAX,
                timeout=TIMEOUT_S,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
            )
            self._redis = redis.Redis.from_pool(pool)
        return self._redis


def _told(error: Exception) -> StoreUnavailable:
    """Redis' own error as ours; an address may hold a password, so it is not repeated."""
    return StoreUnavailable(f"the cache's Redis: {error}; see ledger.url")
