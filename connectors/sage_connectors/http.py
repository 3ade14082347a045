"""The model pool over HTTP: any OpenAI-compatible endpoint, by aiohttp.

aiohttp and not httpx, whose pool is quadratic in the number of queued requests. How many requests
are in flight is the caller's limit (a call's ``capacity``), so the connector has none.
"""

import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import aiohttp

from sage_connectors.endpoints import Endpoints
from sage_flink.common.errors import PoolAway, PoolError, PoolTimeout
from sage_flink.common.openai import error_message, retry_after_s
from sage_flink.common.settings import Settings
from sage_flink.flow import Reply
from sage_flink.flow.calls.classification import verdict_of

RESPONSE_BYTES_MAX = 32 << 20
CONNECT_TIMEOUT_S = 10.0


class HttpPool:
    """A pool at ``urls`` (several: with commas), connections kept alive. Opened by its first
    request, and asked in turn; an endpoint that fails stands aside for a while.

    Used on one event loop at a time; ``timeout_s`` bounds a whole request, and for a stream the
    silence between two pieces. Redirects are answers, not followed.
    """

    def __init__(self, urls: str, key: str, *, timeout_s: float = 600.0) -> None:
        every = [url.strip().rstrip("/") for url in urls.split(",")]
        # Not all at the same: a job's subtasks start together.
        self._endpoints = Endpoints(every, first=random.randrange(len(every)))  # noqa: S311
        self.timeout_s = timeout_s
        self._key = key
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """The reply to one request; an HTTP error is a reply, not an exception.

        Raises:
            PoolTimeout: no answer within ``timeout_s``.
            PoolAway: no connection.
            PoolError: it broke, or the answer is above 32 MiB.
        """
        limit = aiohttp.ClientTimeout(total=self.timeout_s, connect=CONNECT_TIMEOUT_S)
        with self._asked(path) as url:
            async with self._opened().post(
                url + path, data=body, headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                whole = b"".join([chunk async for chunk in _capped(answer)])
        reply = Reply(answer.status, whole, retry_after_s(answer.headers.get("Retry-After", "")))
        self._account(url, reply.status, reply.retry_after_s)
        return reply

    async def stream(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """The body of one request as it arrives; closing the iterator ends the request.

        Raises:
            PoolTimeout: nothing came for ``timeout_s``.
            PoolError: status >= 400 (``status`` and the body's message kept), or it broke.
        """
        limit = aiohttp.ClientTimeout(sock_read=self.timeout_s, connect=CONNECT_TIMEOUT_S)
        with self._asked(path) as url:
            async with self._opened().post(
                url + path, data=body, headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                self._account(url, answer.status, 0.0)
                if answer.status >= 300:
                    said = b"".join([chunk async for chunk in _capped(answer)])
                    raise PoolError(error_message(said, answer.status), status=answer.status)
                async for chunk in _capped(answer):
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

    def _opened(self) -> aiohttp.ClientSession:
        # Opened here and not in __init__: a session belongs to the loop that is running.
        if self._session is None or self._session.closed:
            headers = {"Content-Type": "application/json"}
            if self._key:
                headers["Authorization"] = f"Bearer {self._key}"
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
            self._session = aiohttp.ClientSession(connector=connector, headers=headers)
        return self._session

    @contextmanager
    def _asked(self, path: str) -> Iterator[str]:
        """The URL whose turn it is; what goes wrong with it is counted, and said in our words."""
        url = self._endpoints.next(time.monotonic())
        try:
            yield url
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            self._endpoints.failed(url, time.monotonic())
            raise PoolAway(f"pool at {url}: POST {path}: no connection: {error}") from error
        except TimeoutError as error:
            self._endpoints.failed(url, time.monotonic())
            raise PoolTimeout(
                f"pool at {url}: POST {path}: no answer within {self.timeout_s:g} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            self._endpoints.failed(url, time.monotonic())
            raise PoolError(
                f"pool at {url}: POST {path}: {type(error).__name__}: {error}"
            ) from error

    def _account(self, url: str, status: int, retry_after_s: float) -> None:
        if verdict_of(status).may_pass:
            self._endpoints.failed(url, time.monotonic(), retry_after_s)
        else:
            self._endpoints.answered(url)


def http_pool(url: str = "", key: str = "", *, timeout_s: float = 600.0) -> HttpPool:
    """The pool at ``url`` (several: with commas); without one, the settings' gateway and its key.

    The settings' key goes to the settings' gateway only: a foreign endpoint gets the key given
    here, or none.

    Raises:
        ConfigError: the gateway of the settings is meant and there is no key for it.
    """
    settings = Settings.load()
    own = not url or {each.strip().rstrip("/") for each in url.split(",")} <= set(
        settings.gateway_urls
    )
    named = key or (settings.secret("gateway") if own else "")
    return HttpPool(url or settings.gateway_url, named, timeout_s=timeout_s)


async def _capped(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    seen = 0
    async for chunk in answer.content.iter_any():
        seen += len(chunk)
        if seen > RESPONSE_BYTES_MAX:
            large = f"pool: the answer is above {RESPONSE_BYTES_MAX} bytes"
            raise PoolError(large, status=answer.status)
        yield chunk
