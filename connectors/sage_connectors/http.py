"""The model pool over HTTP: any OpenAI-compatible endpoint, by aiohttp.

aiohttp and not httpx: the connection pool of httpx is quadratic in the number of queued requests.
The caller limits the requests in flight (a call's ``capacity``), so the connector has no limit.
"""

import random
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import aiohttp

from sage_connectors.endpoints import Endpoints
from sage_connectors.tls import Tls
from sage_flink.common.connections import GatewayConnection
from sage_flink.common.connections_file import connection_to, named_connection, one_address
from sage_flink.common.errors import PoolAway, PoolError, PoolTimeout
from sage_flink.common.openai import pool_error, retry_after_s
from sage_flink.common.settings import Settings
from sage_flink.flow import Reply
from sage_flink.flow.calls.classification import classify_status

RESPONSE_BYTES_MAX = 32 << 20
CONNECT_TIMEOUT_S = 10.0


class HttpPool:
    """Client of the pool at ``urls`` (several: with commas), with keep-alive connections.

    It connects at its first request. Requests go to the endpoints in turn; one that fails is
    skipped for a back-off.

    Used on one event loop at a time; ``timeout_s`` bounds a whole request, and for a stream the
    silence between two pieces. Redirects are answers, not followed.
    """

    def __init__(
        self, urls: str, key: str, *, timeout_s: float = 600.0, tls: ssl.SSLContext | None = None
    ) -> None:
        every = [url.strip().rstrip("/") for url in urls.split(",")]
        # Not all at the same: a job's subtasks start together.
        self._endpoints = Endpoints(every, first=random.randrange(len(every)))  # noqa: S311
        self.timeout_s = timeout_s
        self._key = key
        self._tls = tls if tls is not None else True
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The reply to one request; an HTTP error is a reply, not an exception.

        Raises:
            PoolTimeout: no answer within ``timeout_s``.
            PoolAway: no connection.
            PoolError: it broke, or the answer is above 32 MiB.
        """
        limit = aiohttp.ClientTimeout(total=self.timeout_s, connect=CONNECT_TIMEOUT_S)
        with self._endpoint(path) as url:
            async with self._open_session().post(
                url + path, data=body, headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                whole = b"".join([chunk async for chunk in _chunks(answer)])
        reply = Reply(answer.status, whole, retry_after_s(answer.headers.get("Retry-After", "")))
        self._record_status(url, reply.status, reply.retry_after_s)
        return reply

    async def stream(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """The body of one request as it arrives; closing the iterator ends the request.

        Raises:
            PoolTimeout: no data arrived for ``timeout_s``.
            PoolError: status >= 400 (``status`` and the body's message kept), or it broke.
        """
        limit = aiohttp.ClientTimeout(sock_read=self.timeout_s, connect=CONNECT_TIMEOUT_S)
        with self._endpoint(path) as url:
            async with self._open_session().post(
                url + path, data=body, headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                self._record_status(url, answer.status, 0.0)
                if answer.status >= 300:
                    text = b"".join([chunk async for chunk in _chunks(answer)])
                    raise pool_error(text, answer.status)
                async for chunk in _chunks(answer):
                    yield chunk

    async def aclose(self) -> None:
        """Close the connections; a later request opens new ones."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def _open_session(self) -> aiohttp.ClientSession:
        # Opened here and not in __init__: a session belongs to the loop that is running.
        if self._session is None or self._session.closed:
            headers = {"Content-Type": "application/json"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, ssl=self._tls)
            self._session = aiohttp.ClientSession(connector=connector, headers=headers)
        return self._session

    @contextmanager
    def _endpoint(self, path: str) -> Iterator[str]:
        """The next endpoint's URL; wraps the client's errors and counts them as failures."""
        url = self._endpoints.next(time.monotonic())
        try:
            yield url
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            self._endpoints.record_failure(url, time.monotonic())
            raise PoolAway(f"pool at {url}: POST {path}: no connection: {error}") from error
        except TimeoutError as error:
            self._endpoints.record_failure(url, time.monotonic())
            raise PoolTimeout(
                f"pool at {url}: POST {path}: no answer within {self.timeout_s:g} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            self._endpoints.record_failure(url, time.monotonic())
            raise PoolError(
                f"pool at {url}: POST {path}: {type(error).__name__}: {error}"
            ) from error

    def _record_status(self, url: str, status: int, retry_after_s: float) -> None:
        if classify_status(status).retryable:
            self._endpoints.record_failure(url, time.monotonic(), retry_after_s)
        else:
            self._endpoints.record_success(url)


def http_pool(
    url: str = "", key: str = "", *, connection: str = "", timeout_s: float = 600.0
) -> HttpPool:
    """The pool of the ``connection``, or at ``url`` (several: with commas), or the settings'.

    The settings' key is sent to the settings' gateway only; any other endpoint gets ``key``.

    Raises:
        ConfigError: there is no such connection, no secret where it refers to, or no key for the
            gateway of the settings; or a connection and a URL are given.
    """
    one_address("http_pool", connection, "url", url)
    if connection:
        pool = named_connection(connection, GatewayConnection)
    else:
        pool = connection_to(url, GatewayConnection)
    return HttpPool(pool.url, key or pool_key(pool), timeout_s=timeout_s, tls=pool_tls(pool))


def pool_key(pool: GatewayConnection) -> str:
    """The key of a connection; of the settings' gateway, the settings' key where it has none.

    Raises:
        ConfigError: there is none where it should be.
    """
    if pool.key:
        return pool.secret("key")
    settings = Settings.load()
    own = {each.strip().rstrip("/") for each in pool.url.split(",")} <= set(settings.gateway_urls)
    return settings.secret("gateway") if own else ""


def pool_tls(pool: GatewayConnection) -> ssl.SSLContext | None:
    """The authorities of the connection; None: those of the client.

    Raises:
        ConfigError: the file is missing, or is no PEM.
    """
    return Tls(pool.where, pool.ca).context() if pool.ca else None


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    seen = 0
    async for chunk in answer.content.iter_any():
        seen += len(chunk)
        if seen > RESPONSE_BYTES_MAX:
            large = f"pool: the answer is above {RESPONSE_BYTES_MAX} bytes"
            raise PoolError(large, status=answer.status)
        yield chunk
