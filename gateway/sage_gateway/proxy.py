"""Forward a request to a replica: bytes in, bytes out.

One more try when a replica is lost before its answer began, as soon as another has room; after that
nothing is repeated. A stream is handed on in whole events, so that one that breaks can still end
with an error event.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from types import MappingProxyType

import aiohttp

from sage_gateway.answers import Answer, Stream
from sage_gateway.models import Member, Model, counted
from sage_gateway.wire import ApiError, engine_error, error_event

TRIES = 2
EVENT_BYTES_MAX = 8 << 20
HEADERS: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})


class Lost(Exception):  # noqa: N818 - a verdict on a replica, turned into an ApiError here
    """The replica went away before its answer began."""


class Proxy:
    """The data plane's client. One session; ``open`` on the loop that serves."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session. Connections are dropped before an engine's own 5 s are over."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    async def close(self) -> None:
        """Abort what is still running."""
        if self._session is not None:
            await self._session.close()

    async def forward(
        self, model: Model, path: str, body: bytes, *, stream: bool, request_id: str = ""
    ) -> Answer | Stream:
        """The engine's answer to ``body``.

        Raises:
            ApiError: 503 no replica is ready, 429 one was lost and no other had room in time, 502
                the engine failed, 504 it took longer than ``timeout_s``, or what the engine itself
                objects to.
        """
        headers = {**HEADERS, "x-request-id": request_id} if request_id else HEADERS
        ask = _ask_stream if stream else _ask
        tried: list[int] = []
        while len(tried) < TRIES:
            index = model.choose(tried)
            if index is None and model.ready():
                await model.queue.again()
                index = model.choose(tried)
            if index is None:
                break
            tried.append(index)
            member = model.members[index]
            request = self._request(model, member, path, body, headers)
            try:
                return await ask(model, member, request)
            except Lost:
                member.lost()
            except TimeoutError as error:
                seconds = model.spec.timeout_s
                raise ApiError(
                    504, f"{model.name}: no answer within {seconds:g} s", code="timeout"
                ) from error
        raise _nobody(model)

    def _request(
        self, model: Model, member: Member, path: str, body: bytes, headers: Mapping[str, str]
    ) -> "aiohttp.client._RequestContextManager":
        assert self._session is not None
        limit = aiohttp.ClientTimeout(total=model.spec.timeout_s, sock_connect=2.0)
        return self._session.post(
            member.url(path), data=body, headers=headers, timeout=limit, allow_redirects=False
        )


async def _ask(
    model: Model, member: Member, request: "aiohttp.client._RequestContextManager"
) -> Answer:
    with counted(member) as finished:
        try:
            async with request as response:
                found = await response.read()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Lost from error
        if response.status == 200:
            finished()
    if response.status != 200:
        raise engine_error(response.status, found, model.name)
    return Answer(200, found)


async def _ask_stream(
    model: Model, member: Member, request: "aiohttp.client._RequestContextManager"
) -> Stream:
    """A stream whose first bytes have come; until then a lost replica is tried elsewhere."""
    async with contextlib.AsyncExitStack() as stack:
        finished = stack.enter_context(counted(member))
        try:
            response = await stack.enter_async_context(request)
            if response.status != 200:
                raise engine_error(response.status, await response.read(), model.name)
            first = await response.content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            raise Lost from error
        if not first:
            raise Lost
        events = _events(model, member, response, first, finished)
        held = stack.pop_all()
        held.push_async_callback(events.aclose)
        return Stream(events, held.aclose)
    raise AssertionError("the stack swallows nothing")


async def _events(
    model: Model,
    member: Member,
    response: aiohttp.ClientResponse,
    first: bytes,
    finished: Callable[[], None],
) -> AsyncGenerator[bytes, None]:
    """Whole events; the last one is ``[DONE]``, or an error where the engine broke off."""
    held = first
    done = False
    try:
        while chunk := held:
            whole = chunk.rfind(b"\n\n") + 2
            if whole >= 2:
                done = chunk.endswith(b"[DONE]\n\n", 0, whole)
                yield chunk[:whole]
                chunk = chunk[whole:]
            if len(chunk) > EVENT_BYTES_MAX:
                break
            more = await response.content.readany()
            held = chunk + more if more else b""
        if done:
            finished()
            return
        why = "broke off"
    except TimeoutError:
        why = f"did not end within {model.spec.timeout_s:g} s"
    except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError):
        why = "was lost"
    member.lost()
    yield error_event(ApiError(502, f"{model.name}: the answer {why}", code="stream_interrupted"))


def _nobody(model: Model) -> ApiError:
    if not model.ready():
        state = model.members[0].replica
        why = f"{model.name} has no ready replica ({state.state}{': ' * bool(state.reason)}"
        return ApiError(503, f"{why}{state.reason}); try again", code="not_ready", retry_after_s=1)
    why = f"{model.name}: the engine went away before it answered; try again"
    return ApiError(503, why, code="engine_lost", retry_after_s=1)
