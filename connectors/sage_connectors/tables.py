"""Tables that a lookup join reads by key: an HTTP service, and Redis."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import orjson

from sage_flink.common.errors import ConfigError, Rejected, StoreUnavailable
from sage_flink.common.http_clients import httpx_options
from sage_flink.common.validation import require, require_whole_number

#: Statuses at which the same request may succeed later; and all from 500 on.
_LATER = {408, 425, 429}


@dataclass(frozen=True, slots=True)
class HttpTable:
    """A service with one JSON document a key: ``GET url``, where ``{key}`` is the key.

    404 and 410 are a key without a row. While the service does not answer, or answers 429 or 5xx,
    the step waits and tries again; any other status refuses the record. ``in_flight_max`` requests
    at a time.
    """

    url: str
    timeout_s: float = 10.0
    in_flight_max: int = 16

    def __post_init__(self) -> None:
        of_http = isinstance(self.url, str) and self.url.startswith(("http://", "https://"))
        required = "an address such as http://host/users/{key}"
        require(of_http and self.url.count("{key}") == 1, "http table", "url", required, self.url)
        number = isinstance(self.timeout_s, int | float) and self.timeout_s > 0
        require(number, "http table", "timeout_s", "more than 0 seconds", self.timeout_s)
        require_whole_number("http table", "in_flight_max", self.in_flight_max)

    def reader(self) -> "HttpReader":
        """Open it; connections are made by the first request."""
        return HttpReader(self)


class HttpReader:
    """An open HttpTable."""

    def __init__(self, spec: HttpTable) -> None:
        self._spec = spec
        self._client = httpx.Client(timeout=spec.timeout_s, **httpx_options(spec.url))
        self._threads = ThreadPoolExecutor(spec.in_flight_max)

    def rows(self, keys: Sequence[str]) -> Mapping[str, Any]:
        """The document of each key that has one.

        Raises:
            StoreUnavailable: no answer, or one that asks to try again.
            Rejected: another status, or no JSON.
        """
        found = zip(keys, self._threads.map(self._row, keys), strict=True)
        return {key: row for key, row in found if row is not None}

    def close(self) -> None:
        """Close the connections."""
        self._threads.shutdown()
        self._client.close()

    def _row(self, key: str) -> Any:
        url = self._spec.url.replace("{key}", quote(key, safe=""))
        try:
            answer = self._client.get(url)
        except httpx.TransportError as error:
            raise StoreUnavailable(f"{url}: {type(error).__name__}: {error}") from error
        status = answer.status_code
        if status in (404, 410):
            return None
        if status in _LATER or status >= 500:
            raise StoreUnavailable(f"{url}: answered {status}: {answer.text:.200}")
        if status != 200:
            raise Rejected(f"{url}: answered {status}: {answer.text:.200}")
        try:
            return orjson.loads(answer.content)
        except orjson.JSONDecodeError as error:
            raise Rejected(f"{url}: answered no JSON: {error}") from error


@dataclass(frozen=True, slots=True)
class RedisTable:
    """A Redis with one JSON document a key, named ``prefix`` and the key; read by ``MGET``.

    ``connection`` is the name of a connection, or ``url`` an address such as
    ``redis://127.0.0.1:6379/0``.
    """

    url: str = ""
    connection: str = ""
    prefix: str = ""

    def reader(self) -> "RedisReader":
        """Open it; a connection is made by the first read.

        Raises:
            ConfigError: there is no such connection, or the package ``redis`` is missing.
        """
        return RedisReader(self)


class RedisReader:
    """An open RedisTable."""

    def __init__(self, spec: RedisTable) -> None:
        try:
            import redis
        except ModuleNotFoundError as error:
            raise ConfigError("redis is missing: pip install 'sage-flink[gateway]'") from error
        from sage_connectors.redis_connection import TIMEOUT_S, redis_options
        from sage_flink.common.connections import RedisConnection
        from sage_flink.common.connections_file import connection_to, named_connection

        if bool(spec.url) == bool(spec.connection):
            raise ConfigError("redis table: give either a url or the name of a connection")
        server = (
            named_connection(spec.connection, RedisConnection)
            if spec.connection
            else connection_to(spec.url, RedisConnection)
        )
        timeouts = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
        self._where, self._prefix = server.where, spec.prefix
        self._errors = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError)
        self._client = redis.Redis.from_url(server.url, **redis_options(server), **timeouts)

    def rows(self, keys: Sequence[str]) -> Mapping[str, Any]:
        """The document of each key that has one.

        Raises:
            StoreUnavailable: the server does not answer.
            Rejected: a value is no JSON.
        """
        try:
            values: Any = self._client.mget([self._prefix + key for key in keys])
        except self._errors as error:
            raise StoreUnavailable(f"{self._where}: {error}") from error
        found = zip(keys, values, strict=True)
        return {key: self._document(key, value) for key, value in found if value is not None}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _document(self, key: str, value: bytes) -> Any:
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise Rejected(
                f"{self._where}: the value of {key!r:.100} is no JSON: {error}"
            ) from error
