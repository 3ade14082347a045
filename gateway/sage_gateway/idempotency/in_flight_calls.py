"""A call under an id is made once: a repeat finds the answer, or joins the call that runs.

The call runs in a task of its own, so it does not end with the one who began it. **When everybody
has hung up it goes on for** ``grace_s``, ``orphans_max`` such calls at most: a TaskManager that is
killed drops its sockets, and asks the same again half a minute later; aborted at once, every
generation in flight would be paid for twice. It ends early only if its answer could not be kept.
A call without an id is still aborted with its caller.

An answer is recorded before its end is sent: whole before its first byte, streamed before
``[DONE]``. What is no 200, is cut short or is no finished answer is told to all who listen and then
forgotten, so that the next one asks anew. Beside a call at another gateway (Redis) one waits for
the record; if that call fails, the first to look asks the engine itself.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sage_gateway.errors import GatewayError, IdempotencyKeyReused, InternalError, NoReplica
from sage_gateway.idempotency.counters import Counts
from sage_gateway.idempotency.decisions import (
    Step,
    Ticket,
    goes_on,
    step_for,
)
from sage_gateway.idempotency.in_flight_call import Run
from sage_gateway.idempotency.resilient_store import Away, Keeper
from sage_gateway.idempotency.store_protocol import Recorded, Store
from sage_gateway.openai.completeness import is_complete
from sage_gateway.requests.response import Response, StreamFacts, StreamingResponse

log = logging.getLogger("sage.gateway")

Ask = Callable[[], Awaitable[Response | StreamingResponse]]
LOOK_FIRST_S = 0.02
LOOK_MAX_S = 0.5


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may cost beyond its caller's patience."""

    answer_bytes_max: int
    grace_s: float
    orphans_max: int


class Once:
    """All calls that are answered once out of one store."""

    def __init__(self, store: Store, *, limits: Limits, counts: Counts) -> None:
        self._keeper = Keeper(store, counts)
        self._limits = limits
        self._counts = counts
        self._running: dict[bytes, Run] = {}
        self._orphans: set[Run] = set()

    async def open(self) -> None:
        """Open the store."""
        await self._keeper.open()

    async def close(self) -> None:
        """End every call, whoever listens, and close the store."""
        tasks = [run.task for run in self._running.values() if run.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._keeper.close()

    async def answer(self, ticket: Ticket, ask: Ask) -> Response | StreamingResponse:
        """The one answer to ``ticket``, by ``ask`` only if nobody asked before.

        Raises:
            GatewayError: 422, the id belongs to another body; 503, the gateway stops.
        """
        run = self._running.get(ticket.key)
        if run is None:
            return await self._begin(ticket, ask).heard(None)
        if run.ticket.digest != ticket.digest:
            self._counts.calls["refused"].inc()
            raise _reused()
        if run.cut:
            self._counts.calls["passed"].inc()
            return await ask()
        self._adopt(run)
        found = await run.heard("joined")
        self._counts.calls[run.mark or "joined"].inc()
        return found

    def _begin(self, ticket: Ticket, ask: Ask) -> Run:
        bytes_max = self._limits.answer_bytes_max
        run = Run(ticket, bytes_max=bytes_max, deserted=self._deserted)
        self._running[ticket.key] = run
        run.task = asyncio.create_task(self._work(run, ticket, ask))
        return run

    async def _work(self, run: Run, ticket: Ticket, ask: Ask) -> None:
        claimed = kept = False
        try:
            found = await self._claimed(run, ticket)
            if isinstance(found, Recorded):
                self._counts.calls["joined" if run.mark else "hit"].inc()
                return run.replayed(found)
            run.mark = None
            claimed = found is None
            self._counts.calls["asked" if claimed else "passed"].inc()
            kept = await self._asked(run, ticket, await ask(), claimed)
        except asyncio.CancelledError:
            run.failed(NoReplica("this call was ended; ask again", retry_after_s=1))
            raise
        except GatewayError as error:
            run.failed(error)
        except Exception:  # our own bug; who listens must not wait for ever
            log.exception("ledger: a call failed")
            run.failed(InternalError("the gateway failed; its log says why"))
        finally:
            self._over(run)
            if claimed and not kept:
                await self._keeper.release(ticket.key)

    async def _claimed(self, run: Run, ticket: Ticket) -> Recorded | Away | None:
        """The kept answer, or None once the call is ours; waits while another gateway asks."""
        pause_s = LOOK_FIRST_S
        while True:
            known = await self._keeper.claim(ticket.key, ticket.digest)
            if isinstance(known, Away):
                return known
            match step_for(ticket, known):
                case Step.ASK:
                    return None
                case Step.REPLAY:
                    assert isinstance(known, Recorded)
                    return known
                case Step.REFUSE:
                    self._counts.calls["refused"].inc()
                    raise _reused()
                case Step.WAIT:
                    run.mark = "joined"
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, LOOK_MAX_S)

    async def _asked(
        self, run: Run, ticket: Ticket, found: Response | StreamingResponse, claimed: bool
    ) -> bool:
        """Hand the engine's answer on; whether it is kept."""
        kept = False
        if isinstance(found, Response):
            if claimed and found.status == 200:
                fit = is_complete(found.body, bytes_max=self._limits.answer_bytes_max)
                kept = await self._kept(ticket, fit, False, found.body)
            run.answered(found)
            return kept
        recording = StreamRecording(self, run, ticket)
        if claimed:
            found.observe(recording)
        try:
            run.begun()
            async for chunk in found:
                await run.event(chunk)
            run.ended()
        finally:
            await found.close()
        return recording.kept

    async def keep_stream(self, run: Run, ticket: Ticket, last: bytes, *, fit: bool) -> bool:
        """Record the stream of ``run`` with its ``last`` chunk; whether it is recorded."""
        return await self._kept(ticket, fit and not run.cut, True, run.so_far() + last)

    async def _kept(self, ticket: Ticket, fit: bool, stream: bool, body: bytes) -> bool:
        if not fit or len(body) > self._limits.answer_bytes_max:
            self._counts.unfit.inc()
            return False
        return await self._keeper.record(ticket.key, Recorded(ticket.digest, stream, body))

    def _deserted(self, run: Run) -> None:
        """Nobody listens any more."""
        limits = self._limits
        going_on = goes_on(
            orphans=len(self._orphans),
            orphans_max=limits.orphans_max,
            grace_s=limits.grace_s,
            kept=not run.cut,
        )
        if not going_on:
            self._abort(run)
            return
        self._orphans.add(run)
        self._counts.orphans.inc()
        loop = asyncio.get_running_loop()
        run.timer = loop.call_later(limits.grace_s, self._abort, run)

    def _adopt(self, run: Run) -> None:
        """Somebody listens again."""
        if run.timer is not None:
            run.timer.cancel()
            run.timer = None
        if run in self._orphans:
            self._orphans.remove(run)
            self._counts.orphans.dec()

    def _abort(self, run: Run) -> None:
        """End it now. It cannot be joined from here on, though its task ends a little later."""
        self._counts.aborted.inc()
        self._over(run)
        if run.task is not None:
            run.task.cancel()

    def _over(self, run: Run) -> None:
        """Nobody can join it any more, nor is it anybody's orphan."""
        if self._running.get(run.ticket.key) is run:
            del self._running[run.ticket.key]
        self._adopt(run)


class StreamRecording:
    """Records a stream before its last event is handed on; ``kept``: whether it is recorded."""

    __slots__ = ("_calls", "_run", "_ticket", "kept")

    def __init__(self, calls: Once, run: Run, ticket: Ticket) -> None:
        self.kept = False
        self._calls = calls
        self._run = run
        self._ticket = ticket

    async def before_done(self, facts: StreamFacts, chunk: bytes) -> None:
        """Record all events, unless one of them is an error."""
        fit = not facts.broken
        self.kept = await self._calls.keep_stream(self._run, self._ticket, chunk, fit=fit)

    async def on_end(self, facts: StreamFacts, *, complete: bool) -> None:
        """A stream without a last event is not recorded."""


def _reused() -> GatewayError:
    return IdempotencyKeyReused(
        "this Idempotency-Key was used with another body; send the same body, or a new key",
        param="Idempotency-Key",
    )
