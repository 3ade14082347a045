"""The answer of one replica to one request: whole, joined from a stream, or streamed.

A stream is passed on in whole events, so that a broken one can still end with an error event. Some
engines end their work for a caller that disconnected only if it is a stream: they are asked for
one, and its events are joined (:mod:`sage_gateway.openai.joined_answer`).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import aiohttp
import orjson

from sage_gateway.errors import EngineFailed, GatewayError, InvalidRequest
from sage_gateway.forwarding.engine_client import EngineRequest
from sage_gateway.forwarding.logprob_events import LogprobEvents
from sage_gateway.forwarding.outbound import Outbound
from sage_gateway.forwarding.remote_events import Content, RemoteEvents
from sage_gateway.forwarding.replica_call import ReplicaCall
from sage_gateway.models.model import Model
from sage_gateway.models.replica_slot import ReplicaSlot
from sage_gateway.openai.engine_answer import engine_error, error_status, tokens
from sage_gateway.openai.error_table import error_event
from sage_gateway.openai.joined_answer import JoinedAnswer, StreamBrokenError
from sage_gateway.requests.response import Response, StreamingResponse

EVENT_BYTES_MAX = 8 << 20


class ReplicaLostError(Exception):
    """The replica was lost before its answer began; the forwarder tries another one."""


async def call(outbound: Outbound, member: ReplicaSlot, request: EngineRequest) -> Response:
    """The whole answer, as the engine gives it."""
    model = outbound.model
    with ReplicaCall(member) as attempt:
        try:
            async with request as response:
                body = await response.read()
        except asyncio.CancelledError:
            outbound.aborted.seconds = attempt.seconds
            raise
        except (aiohttp.ClientError, ConnectionError) as error:
            attempt.lose()
            raise ReplicaLostError from error
        if response.status != 200:
            raise _error(outbound, attempt, response.status, body)
        attempt.succeed()
        attempt.finish()
        member.learn_from(body)
        used = tokens(body)
        model.load.record_pace(attempt.seconds, used)
    return Response(200, body, used=used)


async def call_joined(outbound: Outbound, member: ReplicaSlot, request: EngineRequest) -> Response:
    """The whole answer that is joined from the engine's stream."""
    joined, body = JoinedAnswer(outbound.joined), b""
    with ReplicaCall(member) as attempt:
        try:
            async with request as response:
                if response.status == 200:
                    content = _content(outbound, member, response.content)
                    while chunk := await content.readany():
                        joined.add(chunk)
                else:
                    body = await response.read()
        except asyncio.CancelledError:
            outbound.aborted.used = joined.tokens()
            raise
        except (aiohttp.ClientError, ConnectionError, StreamBrokenError) as error:
            attempt.lose()
            raise ReplicaLostError from error
        status = response.status
        if joined.error is not None:
            status, body = error_status(joined.error), orjson.dumps({"error": joined.error})
        if status != 200:
            raise _error(outbound, attempt, status, body)
        if not joined.done:
            attempt.lose()
            raise ReplicaLostError
        attempt.succeed()
        attempt.finish()
    return Response(200, joined.body(), used=joined.tokens())


async def call_stream(
    outbound: Outbound, member: ReplicaSlot, request: EngineRequest
) -> StreamingResponse:
    """A stream whose first bytes are there; a replica lost before them is replaced by another."""
    async with contextlib.AsyncExitStack() as stack:
        attempt = stack.enter_context(ReplicaCall(member))
        try:
            response = await stack.enter_async_context(request)
            if response.status != 200:
                body = await response.read()
                raise _error(outbound, attempt, response.status, body)
            content = _content(outbound, member, response.content)
            first = await content.readany()
        except (aiohttp.ClientError, ConnectionError) as error:
            attempt.lose()
            raise ReplicaLostError from error
        if not first:
            attempt.lose()
            raise ReplicaLostError
        attempt.succeed()
        events = _events(outbound.model, attempt, content, first)
        resources = stack.pop_all()
        resources.push_async_callback(events.aclose)
        return StreamingResponse(events, resources.aclose)
    raise AssertionError("the stack suppresses no exception")


def _content(outbound: Outbound, member: ReplicaSlot, content: Content) -> Content:
    if outbound.logprobs is not None:
        return LogprobEvents(content, outbound.logprobs)
    return content if member.launch.target is None else RemoteEvents(content)


def _error(outbound: Outbound, attempt: ReplicaCall, status: int, body: bytes) -> GatewayError:
    """The client's error, reported: a refusal is an answer; an engine's own failure is not.

    The client's own key is never sent to a remote engine.
    """
    model = outbound.model.name
    if attempt.member.launch.target is not None and status in (401, 403):
        message = f"{model}: the remote engine refused this gateway; its key_env may be wrong"
        error: GatewayError = EngineFailed(message)
    else:
        error = engine_error(status, body, model, outbound.path)
    if status < 500 or isinstance(error, InvalidRequest):
        attempt.succeed()
    else:
        attempt.err()
    return error


async def _events(
    model: Model, attempt: ReplicaCall, content: Content, first: bytes
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
            attempt.finish()
            return
        why = "broke off"
    except TimeoutError:
        why = f"did not end within {model.spec.timeout_s:g} s"
    except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError):
        why = "was lost"
    attempt.lose()
    yield error_event(EngineFailed(f"{model.name}: the answer {why}", code="stream_interrupted"))
