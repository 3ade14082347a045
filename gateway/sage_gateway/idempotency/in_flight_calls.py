"""Calls in flight under an id: a repeated call gets the recorded answer, or joins the running call.

A call runs in a task of its own, so it does not end with the client that started it. **When all
clients have disconnected it is detached**: it continues for ``grace_s``, and at most
``detached_max`` calls do. A TaskManager that is killed drops its sockets and repeats the same calls
half a minute later; if they were aborted, every generation in flight would be paid for twice. A
detached call is aborted early only if its answer cannot be recorded; what was generated until then
is charged. A call without an id is aborted with its client.

An answer is recorded before its end is sent: a whole one before its first byte, a stream before
``[DONE]``. Only complete 200 responses are recorded. Anything else is delivered to the waiting
clients and dropped, so the next request goes to the engine. A call that runs at another gateway
(Redis) is waited for by its record; if it fails, the first gateway to notice calls an engine.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sage_gateway.errors import GatewayError, IdempotencyKeyReused, InternalError, NoReplica
from sage_gateway.idempotency.counters import IdempotencyMetrics
from sage_gateway.idempotency.decisions import (
    IdempotencyKey,
    NextStep,
    may_detach,
    step_for,
)
from sage_gateway.idempotency.in_flight_call import COALESCED, REPLAYED, InFlightCall
from sage_gateway.idempotency.resilient_store import ResilientStore, Unavailable
from sage_gateway.idempotency.store_protocol import IdempotencyStore, RecordedAnswer
from sage_gateway.openai.completeness import is_complete
from sage_gateway.requests.request import Answering, Request
from sage_gateway.requests.response import Response, StreamFacts, StreamingResponse

log = logging.getLogger("sage.gateway")

#: Makes the call, at an engine.
Dispatch = Callable[[Request], Awaitable[Response | StreamingResponse]]
POLL_MIN_S = 0.02
POLL_MAX_S = 0.5


@dataclass(frozen=True, slots=True)
class InFlightLimits:
    """Bounds of one answer in bytes, and of detached calls in seconds and number."""

    answer_bytes_max: int
    grace_s: float
    detached_max: int


class InFlightCalls:
    """The calls in flight whose answers are recorded in one store."""

    def __init__(
        self,
        store: IdempotencyStore,
        dispatch: Dispatch,
        *,
        limits: InFlightLimits,
        metrics: IdempotencyMetrics,
    ) -> None:
        self._store = ResilientStore(store, metrics)
        self._dispatch = dispatch
        self._limits = limits
        self._metrics = metrics
        self._calls: dict[bytes, InFlightCall] = {}
        self._detached: set[InFlightCall] = set()

    async def open(self) -> None:
        """Open the store."""
        await self._store.open()

    async def close(self) -> None:
        """Abort every call, without a charge, and close the store."""
        for call in self._calls.values():
            call.abandon()
        tasks = [call.task for call in self._calls.values() if call.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._store.close()

    def answer(self, key: IdempotencyKey, request: Request) -> Answering:
        """The one answer to ``key``; ``request`` is dispatched only if the call is new.

        Raises:
            IdempotencyKeyReused, NoReplica: the id belongs to another body; the gateway stops.
        """
        call = self._calls.get(key.name)
        if call is None:
            return self._start(key, request).listen(None)
        return self._join(call, key, request)

    async def _join(
        self, call: InFlightCall, key: IdempotencyKey, request: Request
    ) -> Response | StreamingResponse:
        if call.key.digest != key.digest:
            self._metrics.calls["refused"] += 1
            raise _key_reused()
        if call.truncated:
            self._metrics.calls["bypassed"] += 1
            return await self._dispatch(request)
        self._attach(call)
        found = await call.listen(COALESCED)
        self._metrics.calls["replayed" if call.source == REPLAYED else "coalesced"] += 1
        return found

    def _start(self, key: IdempotencyKey, request: Request) -> InFlightCall:
        bytes_max = self._limits.answer_bytes_max
        call = InFlightCall(key, bytes_max=bytes_max, on_detached=self._detach)
        request.progress = call.progress  # no longer that of its first client
        self._calls[key.name] = call
        call.task = asyncio.get_running_loop().create_task(self._run(call, request))
        return call

    async def _run(self, call: InFlightCall, request: Request) -> None:
        claims = recorded = False
        try:
            found = await self._claim(call)
            if isinstance(found, RecordedAnswer):
                self._metrics.calls["coalesced" if call.source else "replayed"] += 1
                return call.replay(found)
            call.source = None
            claims = found is None
            self._metrics.calls["dispatched" if claims else "bypassed"] += 1
            recorded = await self._deliver(call, await self._dispatch(request), claims)
        except asyncio.CancelledError:
            call.fail(NoReplica("this call was ended; ask again", retry_after_s=1))
            raise
        except GatewayError as error:
            call.fail(error)
        except Exception:  # a bug of the gateway; its listeners must not wait forever
            log.exception("idempotency: a call failed")
            call.fail(InternalError("the gateway failed; its log says why"))
        finally:
            self._remove(call)
            if claims and not recorded:
                await self._store.release(call.key.name)

    async def _claim(self, call: InFlightCall) -> RecordedAnswer | Unavailable | None:
        """The recorded answer, or None after a claim; waits while another gateway has the claim."""
        pause_s = POLL_MIN_S
        while True:
            known = await self._store.claim(call.key.name, call.key.digest)
            if isinstance(known, Unavailable):
                return known
            match step_for(call.key, known):
                case NextStep.DISPATCH:
                    return None
                case NextStep.REPLAY:
                    assert isinstance(known, RecordedAnswer)
                    return known
                case NextStep.REFUSE:
                    self._metrics.calls["refused"] += 1
                    raise _key_reused()
                case NextStep.WAIT:
                    call.source = COALESCED
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, POLL_MAX_S)

    async def _deliver(
        self, call: InFlightCall, found: Response | StreamingResponse, claims: bool
    ) -> bool:
        """Hand the engine's answer to the listeners; whether it is recorded."""
        if isinstance(found, Response):
            recorded = False
            if claims and found.status == 200:
                complete = is_complete(found.body, bytes_max=self._limits.answer_bytes_max)
                recorded = await self._record(call, found.body, stream=False, complete=complete)
            call.set_response(found)
            return recorded
        recording = StreamRecording(self, call)
        if claims:
            found.observe(recording)
        try:
            call.start_stream()
            async for chunk in found:
                await call.add_events(chunk)
            call.end()
        finally:
            await (found.abandon() if call.abandoned else found.close())
        return recording.succeeded

    async def record_stream(self, call: InFlightCall, last: bytes, *, complete: bool) -> bool:
        """Record the stream of ``call`` with its ``last`` chunk; whether it is recorded."""
        complete = complete and not call.truncated
        return await self._record(call, call.events_so_far() + last, stream=True, complete=complete)

    async def _record(
        self, call: InFlightCall, body: bytes, *, stream: bool, complete: bool
    ) -> bool:
        if not complete or len(body) > self._limits.answer_bytes_max:
            self._metrics.unfit.inc()
            return False
        return await self._store.record(
            call.key.name, RecordedAnswer(call.key.digest, stream, body)
        )

    def _detach(self, call: InFlightCall) -> None:
        """Let a call without listeners continue for its grace time, or abort it."""
        limits = self._limits
        detaches = may_detach(
            detached=len(self._detached),
            detached_max=limits.detached_max,
            grace_s=limits.grace_s,
            recordable=not call.truncated,
        )
        if not detaches:
            self._abort(call)
            return
        self._detached.add(call)
        self._metrics.detached.inc()
        loop = asyncio.get_running_loop()
        call.timer = loop.call_later(limits.grace_s, self._abort, call)

    def _attach(self, call: InFlightCall) -> None:
        """Note that the call has a listener again, or is over."""
        if call.timer is not None:
            call.timer.cancel()
            call.timer = None
        if call in self._detached:
            self._detached.remove(call)
            self._metrics.detached.dec()

    def _abort(self, call: InFlightCall) -> None:
        """Abort the call. No client can join it any more; its task ends a little later."""
        self._metrics.aborted.inc()
        call.progress.hung_up = True
        self._remove(call)
        if call.task is not None:
            call.task.cancel()

    def _remove(self, call: InFlightCall) -> None:
        """Remove the call from those in flight and from the detached ones."""
        if self._calls.get(call.key.name) is call:
            del self._calls[call.key.name]
        self._attach(call)


class StreamRecording:
    """Observer that records a stream before its last event is handed on."""

    __slots__ = ("_call", "_calls", "succeeded")

    def __init__(self, calls: InFlightCalls, call: InFlightCall) -> None:
        self.succeeded = False
        self._calls = calls
        self._call = call

    async def before_done(self, facts: StreamFacts, chunk: bytes) -> None:
        """Record all events, unless there are none or one is an error."""
        complete = facts.events > 0 and not facts.is_broken
        self.succeeded = await self._calls.record_stream(self._call, chunk, complete=complete)

    async def on_end(self, facts: StreamFacts, *, complete: bool) -> None:
        """A stream without a last event is not recorded."""


def _key_reused() -> GatewayError:
    return IdempotencyKeyReused(
        "this Idempotency-Key was used with another body; send the same body, or a new key",
        param="Idempotency-Key",
    )
