"""Forwards a request to a replica: bytes in, bytes out.

One more try when a replica is lost before its answer began, as soon as another one has room; after
that no try is repeated. When a client disconnects, its request is cancelled and the connection to
the engine closed, which ends the engine's work.
"""

import asyncio
import contextlib
from functools import lru_cache
from typing import cast

import aiohttp

from sage_gateway.errors import EngineLost, EngineTimeout, GatewayError, NoReplica
from sage_gateway.forwarding.engine_answer import (
    ReplicaLostError,
    call,
    call_joined,
    call_stream,
)
from sage_gateway.forwarding.engine_client import Client, EngineRequest
from sage_gateway.forwarding.outbound import Outbound
from sage_gateway.models.model import Model
from sage_gateway.models.replica_slot import ReplicaSlot
from sage_gateway.requests.response import Response, StreamingResponse

TRIES = 2


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
            for done_call in asyncio.as_completed(calls):
                with contextlib.suppress(GatewayError):
                    return await done_call
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
        while len(tried) < TRIES:
            index = await _choose(outbound, tried, hedge=hedge)
            if index is None:
                break
            tried.append(index)
            member = model.slot(index)
            try:
                request = self._request(outbound, member)
                if outbound.stream:
                    return await call_stream(outbound, member, request)
                if outbound.joined:
                    return await call_joined(outbound, member, request)
                return await call(outbound, member, request)
            except ReplicaLostError:
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
