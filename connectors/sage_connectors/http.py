"""The model pool over HTTP: any OpenAI-compatible endpoint, by aiohttp.

aiohttp and not httpx, whose pool is quadratic in the number of queued requests. How many requests
are in flight is the caller's limit (a call's ``capacity``), so the connector has none.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import aiohttp

from sage_flink.common.errors import PoolError, PoolTimeout
from sage_flink.common.openai import error_message
from sage_flink.common.settings import Settings

RESPONSE_BYTES_MAX = 64 << 20
CONNECT_TIMEOUT_S = 10.0


class HttpPool:
    """A pool at ``url``, with connections kept alive. Opened by its first request.

    Used on one event loop at a time; ``timeout_s`` bounds a whole request, and for a stream the
    silence between two pieces. Redirects are answers, not followed.
    """

    def __init__(self, url: str, key: str, *, timeout_s: float = 600.0) -> None:
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._key = key
        self._session: aiohttp.ClientSession | None = None

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body of one request; an HTTP error is an answer, not an exception.

        Raises:
            PoolTimeout: no answer within ``timeout_s``.
            PoolError: no connection, it broke, or the answer is above 64 MiB.
        """
        limit = aiohttp.ClientTimeout(total=self.timeout_s, connect=CONNECT_TIMEOUT_S)
        with self._said(path):
            async with self._opened().post(
                self.url + path, data=body, headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
                return answer.status, b"".join([chunk async for chunk in _capped(answer)])

    async def stream(
        self, path: str, body: bytes, headers: Mapping[str, str]
    ) -> AsyncIterator[bytes]:
        """The body of one request as it arrives; closing the iterator ends the request.

        Raises:
            PoolTimeout: nothing came for ``timeout_s``.
            PoolError: status >= 400 (``status`` and the body's message kept), or it broke.
        """
        limit = aiohttp.ClientTimeout(sock_read=self.timeout_s, connect=CONNECT_TIMEOUT_S)
        with self._said(path):
            async with self._opened().post(
                self.url + path, data=body, headers=headers, timeout=limit, allow_redirects=False
            ) as answer:
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
    def _said(self, path: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise PoolTimeout(
                f"pool at {self.url}: POST {path}: no answer within {self.timeout_s:g} s"
            ) from error
        except (aiohttp.ClientError, OSError) as error:
            raise PoolError(
                f"pool at {self.url}: POST {path}: {type(error).__name__}: {error}"
            ) from error


def http_pool(url: str = "", key: str = "", *, timeout_s: float = 600.0) -> HttpPool:
    """The pool at ``url``; without one, the gateway of the settings and its key.

    The settings' key goes to the settings' gateway only: a foreign endpoint gets the key given
    here, or none.

    Raises:
        ConfigError: the gateway of the settings is meant and there is no key for it.
    """
    settings = Settings.load()
    own = not url or url.rstrip("/") == settings.gateway_url.rstrip("/")
    named = key or (settings.secret("gateway") if own else "")
    return HttpPool(url or settings.gateway_url, named, timeout_s=timeout_s)


async def _capped(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    seen = 0
    async for chunk in answer.content.iter_any():
        seen += len(chunk)
        if seen > RESPONSE_BYTES_MAX:
            raise PoolError(f"pool: the answer is above {RESPONSE_BYTES_MAX} bytes")
        yield chunk
