"""The supervisor of one replica: it starts, checks, restarts and finally ends the engine.

A supervisor turns what it observes into events for
:func:`sage_gateway.replicas.lifecycle.advance`, acts on the new state, and notifies the pool. It is
the only writer of its slot's lifecycle state.
"""

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sage_flink.common import ConfigError
from sage_gateway.controlplane import readiness_probe
from sage_gateway.controlplane.engine_state import new_record
from sage_gateway.controlplane.supervisor_context import SupervisorContext
from sage_gateway.engines import egress, process
from sage_gateway.models.model import Model
from sage_gateway.models.replica_slot import ReplicaSlot
from sage_gateway.replicas.circuit_breaker import on_verification, opens, reset
from sage_gateway.replicas.lifecycle import (
    ProbeResult,
    ProcessExited,
    ProcessStarted,
    ReplacementRequested,
    ReplicaEvent,
    ReplicaState,
    StartFailed,
    StopRequested,
    advance,
)

log = logging.getLogger("sage.gateway")

STARTING_PAUSE_S = 0.05
#: A process that ends refuses connections before its parent has its exit code.
EXIT_CODE_S = 0.1


class ReplicaSupervisor:
    """Keeps one replica running until it is stopped.

    A slot with a process is an adopted one: the process was started by an earlier gateway.
    """

    def __init__(self, model: Model, slot: ReplicaSlot, context: SupervisorContext) -> None:
        self.slot = slot
        self._model = model
        self._spec = model.spec  # kept: the model's spec may change for later replicas
        self._engine = model.engine
        self._context = context
        self._drain_until_s = float("inf")
        self._checks = 0  # since the last start
        self._log_start = 0  # the size of the engine's log at the last start
        self._stopping: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._run(), name=slot.replica.name)
        self._task.add_done_callback(_log_failure)

    def request_replacement(self) -> None:
        """Mark the replica as being replaced; the pool stops it once a successor is ready."""
        self._advance(ReplacementRequested())

    def stop(self, limit_s: float) -> "asyncio.Task[None]":
        """Take no new requests, drain and end; the returned task is done when it has ended.

        Requests in flight have ``limit_s`` to finish; a second call can only make that shorter.
        """
        self._drain_until_s = min(self._drain_until_s, time.monotonic() + limit_s)
        if self._stopping is None:
            self._advance(StopRequested())
            self._task.cancel()
            self._stopping = asyncio.create_task(self._end(), name=self.slot.replica.name)
            self._stopping.add_done_callback(_log_failure)
        return self._stopping

    async def _run(self) -> None:
        running = await self._adopt()
        while True:
            if not running:
                await self._launch()
            await self._watch()
            if self.slot.replica.state is not ReplicaState.FAILED:
                return  # the pool stopped it, in reaction to its own notification
            await self._kill()
            running = False
            await asyncio.sleep(max(0.0, self.slot.replica.retry_at_s - time.monotonic()))
            self._advance(ProcessStarted())

    async def _adopt(self) -> bool:
        """Whether the slot has an engine that answers; one that does not is killed."""
        engine = self.slot.process
        if engine is None:
            return False
        if not await self._is_healthy():
            log.warning("%s: process %d does not answer", self.slot.replica.name, engine.pid)
            await self._kill()
            return False
        log.info("%s: process %d is taken over", self.slot.replica.name, engine.pid)
        self._advance(ProbeResult(True))
        self._context.on_change(self._model)
        return True

    async def _kill(self) -> None:
        if self.slot.process is not None:
            await process.kill(self.slot.process)
        await self._clean_up()

    async def _clean_up(self) -> None:
        """Remove the record of the engine and the connections to it."""
        slot = self.slot
        if slot.record is not None:
            slot.record.unlink(missing_ok=True)
        if slot.session is not None:
            session, slot.session = slot.session, None
            await session.close()

    async def _launch(self) -> None:
        slot = self.slot
        slot.process = None
        self._checks = 0
        slot.set_breaker(reset(slot.breaker))
        try:
            if slot.launch.target is None:
                await self._start()
            else:
                await self._connect(slot.launch.target)
        except (OSError, ConfigError) as error:  # no memory, no descriptors; no such host
            self._advance(StartFailed(str(error)))
        except Exception as error:  # the engine's own code: tried again later, as if it had died
            log.exception("%s: engine %s is broken", slot.replica.name, self._spec.engine)
            self._advance(StartFailed(repr(error)))
        self._context.on_change(self._model)

    async def _start(self) -> None:
        slot = self.slot
        slot.launch = replace(slot.launch, port=process.free_port())
        command = self._engine.argv(slot.launch)
        slot.launched_s = time.monotonic()
        tether = self._tether()
        self._log_start = process.log_size(self._log_path())
        slot.process = await process.start(command, self._engine.env, self._log_path(), tether)
        self._write_record(command, slot.process.pid)

    async def _connect(self, target: egress.Target) -> None:
        slot = self.slot
        addresses = await egress.resolve(target)
        key = os.environ.get(target.key_env, "") if target.key_env else ""
        slot.headers = {"authorization": f"Bearer {key}"} if key else {}
        slot.launched_s = time.monotonic()
        slot.session = egress.session(target, addresses)

    def _tether(self) -> process.Tether:
        store, slot = self._context.store, self.slot
        if store is None or not self._context.grace_s:
            return process.Tether()
        slot.record = store.new_path(self._model.name, slot.index)
        return process.Tether(self._context.grace_s, slot.record)

    def _write_record(self, command: Sequence[str], pid: int) -> None:
        """Record the engine; without a record no other gateway can adopt it, and it ends."""
        store, slot = self._context.store, self.slot
        if store is None or slot.record is None:
            return
        port, env = slot.launch.port, self._engine.env
        record = new_record(self._model.name, slot.index, pid, port, command, env)
        try:
            store.write_engine(slot.record, record)
        except OSError as error:
            log.warning("%s: cannot be taken over later: %s", slot.replica.name, error)

    async def _watch(self) -> None:
        """Return when the replica has failed."""
        slot = self.slot
        if slot.process is None and slot.session is None:
            return
        exited = asyncio.create_task(_exit_code(slot))
        try:
            while slot.replica.state in (ReplicaState.STARTING, ReplicaState.READY):
                await self._pause(exited)
                check = None if exited.done() else await self._check()
                if check and not check.healthy:
                    await asyncio.wait({exited}, timeout=EXIT_CODE_S)
                if check and not exited.done():
                    self._advance(check)
                else:
                    self._advance(ProcessExited(exited.result(), self._exit_reason()))
                self._context.on_change(self._model)
        finally:
            exited.cancel()

    def _exit_reason(self) -> str:
        """The last line of the log of an engine that never served: others may quote a prompt."""
        starting = self.slot.replica.state is ReplicaState.STARTING
        return process.last_line(self._log_path(), self._log_start) if starting else ""

    async def _pause(self, exited: "asyncio.Task[int]") -> None:
        """Wait for the next check: earlier if the process exits or a check is requested."""
        ready = self.slot.replica.state is ReplicaState.READY
        pause = self._spec.health.interval_s if ready else STARTING_PAUSE_S
        pause = max(pause, self._engine.interval_s_min * bool(self._checks))
        self._checks += 1
        check_now = asyncio.create_task(self.slot.check_now.wait())
        both = {exited, check_now}
        try:
            await asyncio.wait(both, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        finally:
            check_now.cancel()
        self.slot.check_now.clear()

    async def _check(self) -> ProbeResult:
        """The result of a health check; the replica is suspect while it is slow."""
        slot = self.slot
        loop = asyncio.get_running_loop()
        slow = loop.call_later(self._spec.health.suspect_s, self._mark_suspect)
        try:
            healthy = await self._is_healthy()
        finally:
            slow.cancel()
        if healthy and slot.replica.state is ReplicaState.STARTING and self._engine.probe:
            reason = await self._probe()
            return ProbeResult(not reason, reason)
        if healthy and slot.verification_due:
            await self._verify()
        return ProbeResult(healthy)

    async def _probe(self) -> str:
        """Why the replica does not answer a request of one token; empty if it does."""
        session = self.slot.session or self._context.session
        name = self._spec.remote_model or self._model.name
        return await readiness_probe.probe(self.slot, name, session)

    async def _verify(self) -> None:
        """Open the circuit of a replica whose answers are errors, if the probe's is one too."""
        slot = self.slot
        slot.verification_due = False
        reason = await self._probe() if self._engine.probe else "it answers with errors"
        before = slot.breaker
        after = on_verification(before, serves=not reason, now_s=time.monotonic())
        slot.set_breaker(after)
        if opens(before, after):
            log.warning("%s: circuit %s -> %s", slot.replica.name, before.circuit, after.circuit)

    def _mark_suspect(self) -> None:
        if not self.slot.suspect and self.slot.replica.state is ReplicaState.READY:
            log.info("%s: slow to answer its health check", self.slot.replica.name)
        self.slot.set_suspect(True)

    async def _is_healthy(self) -> bool:
        session = self.slot.session or self._context.session
        return await readiness_probe.is_healthy(self.slot, self._engine.health_path, session)

    async def _end(self) -> None:
        slot = self.slot
        await asyncio.wait([self._task])
        while slot.in_flight and time.monotonic() < self._drain_until_s:  # noqa: ASYNC110 - a count
            await asyncio.sleep(0.05)
        code = await process.stop(slot.process) if slot.process else 0
        await self._clean_up()
        self._advance(ProcessExited(code))
        self._model.remove_slot(slot)
        self._context.on_change(self._model)

    def _advance(self, event: ReplicaEvent) -> None:
        slot = self.slot
        before = slot.replica
        after = advance(before, event, time.monotonic(), self._spec.health)
        slot.set_replica(after)
        if isinstance(event, ProbeResult):
            slot.set_suspect(not event.healthy)
        self._model.on_room_freed()
        if after.state is not before.state:
            level = logging.WARNING if after.state is ReplicaState.FAILED else logging.INFO
            why = f" ({after.reason})" if after.reason else ""
            if after.state is ReplicaState.FAILED and slot.process is not None:
                why += f"; its log: {self._log_path()}"
            log.log(level, "%s: %s -> %s%s", after.name, before.state, after.state, why)

    def _log_path(self) -> Path:
        return self._context.logs / f"engine-{self.slot.replica.name.replace('/', '-')}.log"


async def _exit_code(slot: ReplicaSlot) -> int:
    """The exit code of the slot's process; without a process it never returns."""
    if slot.process is None:
        await asyncio.Event().wait()
        raise AssertionError("the event is never set")
    return await slot.process.wait()


def _log_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        message = "%s: the replica has no supervisor any more; restart the gateway"
        log.critical(message, task.get_name(), exc_info=error)
