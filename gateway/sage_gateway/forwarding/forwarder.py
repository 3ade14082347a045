"""Forward a request to a replica: bytes in, bytes out.

One more try when a replica is lost before its answer began, as soon as another has room; after that
nothing is repeated. A stream is handed on in whole events, so that one that breaks can still end
with an error event.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple, cast

import aiohttp

from sage_gateway.errors import EngineFailed, EngineLost, EngineTimeout, GatewayError, NoReplica
from sage_gateway.forwarding.engine_client import Asking, Client, Response
from sage_gateway.forwarding.replica_call import Call
from sage_gateway.models.model import Model
from sage_gateway.models.replica_slot import ReplicaSlot
from sage_gateway.openai.error_table import error_event
from sage_gateway.openai.schema import engine_error, tokens
from sage_gateway.requests.response import Answer, Stream
from sage_gateway.routing import Headers, RoutingHints

TRIES = 2
EVENT_BYTES_MAX = 8 << 20
HEADERS: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})


class Lost(Exception):  # noqa: N818 - a verdict on a replica, turned into an GatewayError here
    """The replica went away before its answer began."""


class Job(NamedTuple):
    """A request to be forwarded: where to, what, and what routing was told of it."""

    model: Model
    path: str
    body: bytes
    headers: Mapping[str, str]
    stream: bool
    hints: RoutingHints


class Proxy:
    """The data plane's client. One session; ``open`` on the loop that serves."""

    def __init__(self) -> None:
        self._session: Client | None = None

    async def open(self) -> None:
        """Make the client."""
        self._session = Client()

    async def close(self) -> None:
        """Abort what is still running."""
        if self._session is not None:
            await self._session.close()

    async def forward(
        self,
        model: Model,
        path: str,
        body: bytes,
        *,
        stream: bool,
        request_id: str = "",
        headers: Headers = (),
        traceparent: str = "",
    ) -> Answer | Stream:
        """The engine's answer to ``body``. ``headers`` are the caller's: routing reads its own.
        ``traceparent``: that of a sampled request.

        Raises:
            NoReplica, QueueFull: none is ready; one was lost and no other had room in time.
            EngineFailed, EngineTimeout, InvalidRequest: the engine failed, took longer than
                ``timeout_s``, or objects to the request.
        """
        sent = {**HEADERS, "x-request-id": request_id} if request_id else HEADERS
        if traceparent:
            sent = {**sent, "traceparent": traceparent}
        job = Job(model, path, body, sent, stream, model.router.hints(headers, body))
        if model.spec.hedge_after_ms is None:
            return await self._tried(job, [])
        return await self._hedged(job, model.spec.hedge_after_ms / 1000)

    async def _hedged(self, job: Job, after_s: float) -> Answer | Stream:
        """The answer that comes first, of two replicas if one takes longer than ``after_s``.

        The second asking is the request's second try. The loser is cancelled, which aborts it.
        """
        tried: list[int] = []
        asks = [asyncio.create_task(self._tried(job, tried))]
        try:
            done, _ = await asyncio.wait(asks, timeout=after_s)
            if not done:
                asks.append(asyncio.create_task(self._tried(job, tried, elsewhere=True)))
            for ask in asyncio.as_completed(asks):
                with contextlib.suppress(GatewayError):
                    return await ask
            return asks[0].result()
        finally:
            for task in asks:
                task.cancel()
            await asyncio.gather(*asks, return_exceptions=True)

    async def _tried(
        self, job: Job, tried: list[int], *, elsewhere: bool = False
    ) -> Answer | Stream:
        """The answer of the replica chosen, or of the next one where that is lost.

        Each is noted in ``tried``. ``elsewhere``: only one that was not tried before will do.
        """
        model = job.model
        ask = _ask_stream if job.stream else _ask
        while len(tried) < TRIES:
            index = await _chosen(job, tried, elsewhere=elsewhere)
            if index is None:
                break
            tried.append(index)
            member = model.slot(index)
            try:
                return await ask(model, member, self._request(job, member))
            except Lost:
                continue
            except TimeoutError as error:
                seconds = model.spec.timeout_s
                raise EngineTimeout(f"{model.name}: no answer within {seconds:g} s") from error
        raise _nobody(model)

    def _request(self, job: Job, member: ReplicaSlot) -> Asking:
        assert self._session is not None
        client = cast("Client", member.session or self._session)  # as Client says
        return client.post(
            member.url(job.path),
            data=job.body,
            headers={**job.headers, **member.headers} if member.headers else job.headers,
            timeout=_limit(job.model.spec.timeout_s),
            allow_redirects=False,
        )


@lru_cache(maxsize=256)
def _limit(timeout_s: float) -> aiohttp.ClientTimeout:
    """To make one costs a microsecond, and every request of a model has the same."""
    return aiohttp.ClientTimeout(total=timeout_s, sock_connect=2.0)


async def _chosen(job: Job, tried: list[int], *, elsewhere: bool) -> int | None:
    """The replica for the next try, which may wait for one with room; ``elsewhere`` it does not."""
    model = job.model
    if elsewhere:
        index = model.choose(job.hints, tried) if model.queue.can_bypass() else None
        return None if index in tried else index
    index = model.choose(job.hints, tried)
    while index is None and model.ready():
        await model.queue.requeue_retry()
        index = model.choose(job.hints, tried)
    return index


async def _ask(model: Model, member: ReplicaSlot, request: Asking) -> Answer:
    with Call(member) as call:
        try:
            async with request as response:
                found = await response.read()
        except (aiohttp.ClientError, ConnectionError) as error:
            call.lost()
            raise Lost from error
        _judge(call, response.status)
        if response.status == 200:
            call.finished()
    if response.status != 200:
        raise _error(member, response.status, found, model.name)
    return Answer(200, found, used=tokens(found))


async def _ask_stream(model: Model, member: ReplicaSlot, request: Asking) -> Stream:
    """A stream whose first bytes have come; until then a lost replica is tried elsewhere."""
    async with contextlib.AsyncExitStack() as stack:
        call = stack.enter_context(Call(member))
        try:
            response = await stack.enter_async_context(request)
            if response.status != 200:
                found = await response.read()
                _judge(call, response.status)
                raise _error(member, response.status, found, model.name)
            first = await response.content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            call.lost()
            raise Lost from error
        if not first:
            call.lost()
            raise Lost
        call.answered()
        events = _events(model, call, response, first)
        held = stack.pop_all()
        held.push_async_callback(events.aclose)
        return Stream(events, held.aclose)
    raise AssertionError("the stack swallows nothing")


def _error(member: ReplicaSlot, status: int, body: bytes, model: str) -> GatewayError:
    """What it means to the caller, whose own key a remote engine has never seen."""
    if member.launch.target is not None and status in (401, 403):
        message = f"{model}: the remote engine refused this gateway; its key_env may be wrong"
        return EngineFailed(message)
    return engine_error(status, body, model)


def _judge(call: Call, status: int) -> None:
    """A refusal is an answer; an engine's own failure is none."""
    if status < 500:
        call.answered()
    else:
        call.erred()


async def _events(
    model: Model, call: Call, response: Response, first: bytes
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
            call.finished()
            return
        why = "broke off"
    except TimeoutError:
        why = f"did not end within {model.spec.timeout_s:g} s"
    except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError):
        why = "was lost"
    call.lost()
    yield error_event(EngineFailed(f"{model.name}: the answer {why}", code="stream_interrupted"))


def _nobody(model: Model) -> GatewayError:
    if not model.replica_slots:
        why = f"{model.name} has no replicas now; `sage pool scale {model.name} 1` starts one"
        return NoReplica(why, retry_after_s=1)
    if not model.ready():
        state = model.replica_slots[0].replica
        why = f"{model.name} has no ready replica ({state.state}{': ' * bool(state.reason)}"
        return NoReplica(f"{why}{state.reason}); try again", retry_after_s=1)
    why = f"{model.name}: the engine went away before it answered; try again"
    return EngineLost(why, retry_after_s=1)
