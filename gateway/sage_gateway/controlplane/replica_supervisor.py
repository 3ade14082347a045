"""The life of one replica: start its engine, check it, start it again, and end it at last.

A keeper turns what it sees into events for :func:`sage_gateway.replicas.lifecycle.advance`, does
what the new state asks for, and tells the pool. It is the one writer of its member's replica.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from sage_flink.common import ConfigError
from sage_gateway.controlplane import readiness_probe
from sage_gateway.controlplane.engine_state import Record, Records, created_s, digest
from sage_gateway.engines import egress, process
from sage_gateway.models.model import Member, Model
from sage_gateway.replicas.circuit_breaker import renewed
from sage_gateway.replicas.lifecycle import (
    Event,
    Exited,
    LeaveAsked,
    NotStarted,
    Probed,
    Started,
    State,
    StopAsked,
    advance,
)

log = logging.getLogger("sage.gateway")

STARTING_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Ground:
    """What keepers share. ``changed`` is called when a replica of the model was checked or ended.

    A member whose process has ended for good is no longer among the model's when it is. Engines
    are noted in ``records``, where there are any, and then outlive this process by ``grace_s``.
    """

    session: aiohttp.ClientSession
    logs: Path
    changed: Callable[[Model], None]
    records: Records | None = None
    grace_s: float = 0.0


class Keeper:
    """Keeps one replica alive until it is asked to stop.

    A member that has a process already has it from an earlier gateway.
    """

    def __init__(self, model: Model, member: Member, ground: Ground) -> None:
        self.member = member
        self._model = model
        self._spec = model.spec  # its own: the model's may be changed for those that come later
        self._engine = model.engine
        self._ground = ground
        self._over_s = float("inf")
        self._checks = 0  # since the last start
        self._ending: asyncio.Task[None] | None = None
        self._task = asyncio.create_task(self._keep(), name=member.replica.name)
        self._task.add_done_callback(_told_if_broken)

    def leave(self) -> None:
        """Another is to take its place; it is the pool that says when."""
        self._see(LeaveAsked())

    def stop(self, limit_s: float) -> "asyncio.Task[None]":
        """Take no new request from now on, and end: the task that is done when it has.

        What is in flight has ``limit_s`` to finish; a second call can only make that shorter.
        """
        self._over_s = min(self._over_s, time.monotonic() + limit_s)
        if self._ending is None:
            self._see(StopAsked())
            self._task.cancel()
            self._ending = asyncio.create_task(self._end(), name=self.member.replica.name)
            self._ending.add_done_callback(_told_if_broken)
        return self._ending

    async def _keep(self) -> None:
        runs = await self._taken_over()
        while True:
            if not runs:
                await self._launch()
            await self._watch()
            if self.member.replica.state is not State.FAILED:
                return  # it was asked to stop, by what it told the pool itself
            await self._kill()
            runs = False
            await asyncio.sleep(max(0.0, self.member.replica.retry_at_s - time.monotonic()))
            self._see(Started())

    async def _taken_over(self) -> bool:
        """Whether it has an engine that answers; one that does not is killed."""
        engine = self.member.process
        if engine is None:
            return False
        if not await self._healthy():
            log.warning("%s: process %d does not answer", self.member.replica.name, engine.pid)
            await self._kill()
            return False
        log.info("%s: process %d is taken over", self.member.replica.name, engine.pid)
        self._see(Probed(True))
        self._ground.changed(self._model)
        return True

    async def _kill(self) -> None:
        if self.member.process is not None:
            await process.kill(self.member.process)
        await self._forget()

    async def _forget(self) -> None:
        """Nothing is left of what was started: neither word of it nor connections to it."""
        member = self.member
        if member.record is not None:
            member.record.unlink(missing_ok=True)
        if member.session is not None:
            session, member.session = member.session, None
            await session.close()

    async def _launch(self) -> None:
        member = self.member
        member.process = None
        self._checks = 0
        member.breaker = renewed(member.breaker)
        try:
            if member.launch.target is None:
                await self._start()
            else:
                await self._connect(member.launch.target)
        except (OSError, ConfigError) as error:  # no memory, no descriptors; no such host
            self._see(NotStarted(str(error)))
        except Exception as error:  # the engine's own code: tried again later, as if it had died
            log.exception("%s: engine %s is broken", member.replica.name, self._spec.engine)
            self._see(NotStarted(repr(error)))
        self._ground.changed(self._model)

    async def _start(self) -> None:
        member = self.member
        member.launch = replace(member.launch, port=process.free_port())
        line = self._engine.argv(member.launch)
        member.launched_s = time.monotonic()
        member.process = await process.start(line, self._engine.env, self._log(), self._tie())
        self._note(line, member.process.pid)

    async def _connect(self, to: egress.Target) -> None:
        member = self.member
        addresses = await egress.resolved(to)
        key = os.environ.get(to.key_env, "") if to.key_env else ""
        member.headers = {"authorization": f"Bearer {key}"} if key else {}
        member.launched_s = time.monotonic()
        member.session = egress.session(to, addresses)

    def _tie(self) -> process.Tie:
        records, member = self._ground.records, self.member
        if records is None or not self._ground.grace_s:
            return process.Tie()
        member.record = records.path(self._model.name, member.place)
        return process.Tie(self._ground.grace_s, member.record)

    def _note(self, line: Sequence[str], pid: int) -> None:
        """Leave word of the engine; of one without it no other gateway knows, and it then ends."""
        records, member = self._ground.records, self.member
        if records is None or member.record is None:
            return
        record = Record(
            model=self._model.name,
            place=member.place,
            pid=pid,
            created_s=created_s(pid),
            port=member.launch.port,
            digest=digest(line, self._engine.env),
            owner=os.getpid(),
        )
        try:
            records.keep(member.record, record)
        except OSError as error:
            log.warning("%s: cannot be taken over later: %s", member.replica.name, error)

    async def _watch(self) -> None:
        """Return when the replica has failed."""
        member = self.member
        if member.process is None and member.session is None:
            return
        ended = asyncio.create_task(_end_of(member))
        try:
            while member.replica.state in (State.STARTING, State.READY):
                await self._pause(ended)
                if ended.done():
                    self._see(Exited(ended.result()))
                else:
                    self._see(await self._checked())
                self._ground.changed(self._model)
        finally:
            ended.cancel()

    async def _pause(self, ended: "asyncio.Task[int]") -> None:
        """Until the next check is due: at once when the process ends or the proxy has a doubt."""
        ready = self.member.replica.state is State.READY
        pause = self._spec.health.interval_s if ready else STARTING_PAUSE_S
        pause = max(pause, self._engine.interval_s_min * bool(self._checks))
        self._checks += 1
        nudged = asyncio.create_task(self.member.nudge.wait())
        try:
            await asyncio.wait({ended, nudged}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        finally:
            nudged.cancel()
        self.member.nudge.clear()

    async def _checked(self) -> Probed:
        """Whether it is well; while the answer is late it is doubted."""
        member = self.member
        late = asyncio.get_running_loop().call_later(self._spec.health.suspect_s, self._doubt)
        try:
            healthy = await self._healthy()
        finally:
            late.cancel()
        if healthy and self._engine.probe and member.replica.state is State.STARTING:
            session = member.session or self._ground.session
            why = await readiness_probe.fault(
                member, self._spec.remote_model or self._model.name, session
            )
            return Probed(not why, why)
        return Probed(healthy)

    def _doubt(self) -> None:
        if not self.member.suspect and self.member.replica.state is State.READY:
            log.info("%s: slow to answer its health check", self.member.replica.name)
        self.member.suspect = True

    async def _healthy(self) -> bool:
        limit = aiohttp.ClientTimeout(total=self._spec.health.timeout_s)
        try:
            url = self.member.url(self._engine.health_path)
            session = self.member.session or self._ground.session
            headers = self.member.headers
            asked = session.get(url, timeout=limit, headers=headers, allow_redirects=False)
            async with asked as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _end(self) -> None:
        member = self.member
        await asyncio.wait([self._task])
        while member.in_flight and time.monotonic() < self._over_s:  # noqa: ASYNC110 - a count
            await asyncio.sleep(0.05)
        code = await process.stop(member.process) if member.process else 0
        await self._forget()
        self._see(Exited(code))
        self._model.members.remove(member)
        self._ground.changed(self._model)

    def _see(self, event: Event) -> None:
        member, model = self.member, self._model
        before = member.replica
        member.replica = advance(before, event, time.monotonic(), self._spec.health)
        after = member.replica
        if isinstance(event, Probed):
            member.suspect = not event.healthy
        model.freed()
        if after.state is not before.state:
            level = logging.WARNING if after.state is State.FAILED else logging.INFO
            why = f" ({after.reason})" if after.reason else ""
            if after.state is State.FAILED and member.process is not None:
                why += f"; what it said: {self._log()}"
            log.log(level, "%s: %s -> %s%s", after.name, before.state, after.state, why)

    def _log(self) -> Path:
        return self._ground.logs / f"engine-{self.member.replica.name.replace('/', '-')}.log"


async def _end_of(member: Member) -> int:
    """The exit code of its process; where it has none there is no end."""
    if member.process is None:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")
    return await member.process.wait()


def _told_if_broken(keeper: "asyncio.Task[None]") -> None:
    if not keeper.cancelled() and (error := keeper.exception()):
        message = "%s: nobody keeps this replica any more; restart the gateway"
        log.critical(message, keeper.get_name(), exc_info=error)
