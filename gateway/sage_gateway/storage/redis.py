"""Redis connection of the stores that several gateways share: timeouts, scripts, errors."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import redis.asyncio as redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError

from sage_connectors.redis_connection import redis_options
from sage_flink.common import ConfigError, StoreUnavailable
from sage_flink.common.connections import RedisConnection

CONNECTIONS_MAX = 64
TIMEOUT_S = 1.0
Server = str | RedisConnection


class RedisClient:
    """The Redis at a URL (``redis://``, ``rediss://``, ``unix://``) or of a named connection.

    It connects at the first call.

    A call waits ``timeout_s`` at most for each of: a connection of the pool, the server, its
    answer. Errors are ``StoreUnavailable`` with ``name`` in the message, but never the URL, which
    may contain a password.

    Raises:
        ConfigError: it is not the URL of a Redis, or a secret of the connection is missing.
    """

    def __init__(self, server: Server, name: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._name = name
        if isinstance(server, RedisConnection):
            self._setting = f"ledger.connection {server.name!r}"
            url, options = server.url, redis_options(server)
        else:
            self._setting, url, options = "ledger.url", server, {}
        try:
            pool = redis.BlockingConnectionPool.from_url(
                url,
                **options,
                max_connections=CONNECTIONS_MAX,
                timeout=timeout_s,
                socket_timeout=timeout_s,
                socket_connect_timeout=timeout_s,
            )
        except ValueError as error:
            raise ConfigError(f"{self._setting}: {error}") from error
        self._client = redis.Redis.from_pool(pool)
        self._scripts: dict[str, AsyncScript] = {}

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[redis.Redis]:
        """The client.

        Raises:
            StoreUnavailable: Redis failed within the block.
        """
        try:
            yield self._client
        except (RedisError, OSError, TimeoutError) as error:
            raise StoreUnavailable(f"{self._name}: {error}; see {self._setting}") from error

    async def run(self, script: str, keys: Sequence[Any], arguments: Sequence[Any]) -> Any:
        """The result of a Lua script, which runs as one atomic step.

        Raises:
            StoreUnavailable: Redis failed.
        """
        known = self._scripts.get(script)
        if known is None:
            known = self._scripts[script] = self._client.register_script(script)
        async with self.client():
            return await known(keys=keys, args=arguments)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
