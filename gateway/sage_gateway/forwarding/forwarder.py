"""Forwards a request to a replica: bytes in, bytes out.

One more try when a replica is lost before its answer began, as soon as another one has room; after
that no try is repeated. A stream is passed on in whole events, so that a broken one can still end
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
from sage_gateway.forwarding.engine_client import Client, EngineRequest
from sage_gateway.forwarding.remote_events import Content, RemoteEvents
from sage_gateway.forwarding.replica_call import ReplicaCall
from sage_gateway.models.model import Model
from sage_gateway.models.replica_slot import ReplicaSlot
from sage_gateway.openai.engine_answer import engine_error, tokens
from sage_gateway.openai.error_table import error_event
from sage_gateway.requests.request import Request
from sage_gateway.requests.response import Response, StreamingResponse
from sage_gateway.routing import RoutingHints

TRIES = 2
EVENT_BYTES_MAX = 8 << 20
HEADERS: Mapping[str, str] = MappingProxyType({"content-type": "application/json"})


class _ReplicaLost(Exception):  # noqa: N818 - raised and caught in this module
    """The replica was lost before its answer began; another one is tried."""


class Outbound(NamedTuple):
    """A request on its way to a replica of ``model``; ``hints`` are those for routing."""

    model: Model
    path: str
    body: bytes
    headers: Mapping[str, str]
    stream: bool
    hints: RoutingHints

    @classmethod
    def of(cls, model: Model, request: Request, body: bytes, *, stream: bool) -> "Outbound":
        """``request`` with ``body``, in which the model has the name that the engine knows."""
        headers = HEADERS
        if request.request_id:
            headers = {**headers, "x-request-id": request.request_id}
        if request.traceparent:
            headers = {**headers, "traceparent": request.traceparent}
        hints = model.router.hints(request)
        return cls(model, request.path, body, headers, stream, hints)


class Forwarder:
    """The HTTP client of the data plane; ``open`` on the loop that serves."""

    def __init__(self) -> None:
        self._client: Client | None = None

    async def open(self) -> None:
        """Make the client."""
        self._client = Client()

    async def close(self) -> None:
        """Abort all requests at engines."""
        if self._client is not None:
            await self._client.close()

    async def forward(self, outbound: Outbound) -> Response | StreamingResponse:
        """The engine's answer.

        Raises:
            NoReplica, QueueFull: no replica is ready; one was lost and no other had room in time.
            EngineFailed, EngineTimeout, InvalidRequest: the engine failed, took longer than
                ``timeout_s``, or objects to the request.
        """
        hedge_after_ms = outbound.model.spec.hedge_after_ms
        if hedge_after_ms is None:
            return await self._try(outbound, [])
        return await self._hedge(outbound, hedge_after_ms / 1000)

    async def _hedge(self, outbound: Outbound, after_s: float) -> Response | StreamingResponse:
        """The first answer, of two replicas if one takes longer than ``after_s``.

        The second replica is the request's second try. The slower call is cancelled, which aborts
        it at its engine.
        """
        tried: list[int] = []
        calls = [asyncio.create_task(self._try(outbound, tried))]
        try:
            done, _ = await asyncio.wait(calls, timeout=after_s)
            if not done:
                calls.append(asyncio.create_task(self._try(outbound, tried, hedge=True)))
            for call in asyncio.as_completed(calls):
                with contextlib.suppress(GatewayError):
                    return await call
            return calls[0].result()
        finally:
            for task in calls:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)

    async def _try(
        self, outbound: Outbound, tried: list[int], *, hedge: bool = False
    ) -> Response | StreamingResponse:
        """The answer of the replica chosen, or of the next one where that is lost.

        Each is added to ``tried``. ``hedge``: only one that was not tried before is chosen.
        """
        model = outbound.model
        call = _call_stream if outbound.stream else _call
        while len(tried) < TRIES:
            index = await _choose(outbound, tried, hedge=hedge)
            if index is None:
                break
            tried.append(index)
            member = model.slot(index)
            try:
                return await call(model, member, self._request(outbound, member))
            except _ReplicaLost:
                continue
            except TimeoutError as error:
                seconds = model.spec.timeout_s
                raise EngineTimeout(f"{model.name}: no answer within {seconds:g} s") from error
        raise _unavailable(model)

    def _request(self, outbound: Outbound, member: ReplicaSlot) -> EngineRequest:
        assert self._client is not None
        client = cast("Client", member.session or self._client)  # as Client says
        headers = outbound.headers
        return client.post(
            member.url(outbound.path),
            data=outbound.body,
            headers={**headers, **member.headers} if member.headers else headers,
            timeout=_timeout(outbound.model.spec.timeout_s),
            allow_redirects=False,
        )


@lru_cache(maxsize=256)
def _timeout(timeout_s: float) -> aiohttp.ClientTimeout:
    """Making one takes a microsecond, and every request of a model has the same."""
    return aiohttp.ClientTimeout(total=timeout_s, sock_connect=2.0)


async def _choose(outbound: Outbound, tried: list[int], *, hedge: bool) -> int | None:
    """The replica for the next try; waits for room, but not for a ``hedge``."""
    model = outbound.model
    if hedge:
        index = model.choose(outbound.hints, tried) if model.queue.can_bypass() else None
        return None if index in tried else index
    index = model.choose(outbound.hints, tried)
    while index is None and model.ready():
        await model.queue.requeue_retry()
        index = model.choose(outbound.hints, tried)
    return index


async def _call(model: Model, member: ReplicaSlot, request: EngineRequest) -> Response:
    with ReplicaCall(member) as call:
        try:
            async with request as response:
                body = await response.read()
        except (aiohttp.ClientError, ConnectionError) as error:
            call.lose()
            raise _ReplicaLost from error
        _report(call, response.status)
        if response.status == 200:
            call.finish()
    if response.status != 200:
        raise _error(member, response.status, body, model.name)
    return Response(200, body, used=tokens(body))


async def _call_stream(
    model: Model, member: ReplicaSlot, request: EngineRequest
) -> StreamingResponse:
    """A stream whose first bytes are there; a replica lost before them is replaced by another."""
    async with contextlib.AsyncExitStack() as stack:
        call = stack.enter_context(ReplicaCall(member))
        try:
            response = await stack.enter_async_context(request)
            if response.status != 200:
                body = await response.read()
                _report(call, response.status)
                raise _error(member, response.status, body, model.name)
            content: Content = response.content
            if member.launch.target is not None:
                content = RemoteEvents(content)
            first = await content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            call.lose()
            raise _ReplicaLost from error
        if not first:
            call.lose()
            raise _ReplicaLost
        call.succeed()
        events = _events(model, call, content, first)
        resources = stack.pop_all()
        resources.push_async_callback(events.aclose)
        return StreamingResponse(events, resources.aclose)
    raise AssertionError("the stack suppresses no exception")


def _error(member: ReplicaSlot, status: int, body: bytes, model: str) -> GatewayError:
    """The client's error; its own key is never sent to a remote engine."""
    if member.launch.target is not None and status in (401, 403):
        message = f"{model}: the remote engine refused this gateway; its key_env may be wrong"
        return EngineFailed(message)
    return engine_error(status, body, model)


def _report(call: ReplicaCall, status: int) -> None:
    """A refusal is an answer; an engine's own failure is not."""
    if status < 500:
        call.succeed()
    else:
        call.err()


async def _events(
    model: Model, call: ReplicaCall, content: Content, first: bytes
) -> AsyncGenerator[bytes, None]:
    """Chunks of whole events; the last event is ``[DONE]``, or an error of a broken stream."""
    buffered = first
    done = False
    try:
        while chunk := buffered:
            whole = chunk.rfind(b"\n\n") + 2
            if whole >= 2:
                done = chunk.endswith(b"[DONE]\n\n", 0, whole)
                yield chunk[:whole]
                chunk = chunk[whole:]
            if len(chunk) > EVENT_BYTES_MAX:
                break
            more = await content.readany()
            buffered = chunk + more if more else b""
        if done:
            call.finish()
            return
        why = "broke off"
    except TimeoutError:
        why = f"did not end within {model.spec.timeout_s:g} s"
    except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError):
        why = "was lost"
    call.lose()
    yield error_event(EngineFailed(f"{model.name}: the answer {why}", code="stream_interrupted"))


def _unavailable(model: Model) -> GatewayError:
    if not model.replica_slots:
        why = f"{model.name} has no replicas now; `sage pool scale {model.name} 1` starts one"
        return NoReplica(why, retry_after_s=1)
    if not model.ready():
        state = model.replica_slots[0].replica
        why = f"{model.name} has no ready replica ({state.state}{': ' * bool(state.reason)}"
        return NoReplica(f"{why}{state.reason}); try again", retry_after_s=1)
    why = f"{model.name}: the engine went away before it answered; try again"
    return EngineLost(why, retry_after_s=1)
