"""The owner of the replicas: starts, checks, restarts and stops what ``pool.yaml`` asks for.

One task a replica turns what it sees into events for :func:`sage_gateway.replicas.advance` and
does what the new state asks for. The data plane only chooses, counts and hints.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import aiohttp

from sage_gateway import process
from sage_gateway.breaker import renewed
from sage_gateway.engines import Engine
from sage_gateway.models import Member, Model, models_of
from sage_gateway.pool_spec import PoolSpec
from sage_gateway.replicas import (
    Event,
    Exited,
    NotStarted,
    Probed,
    Started,
    State,
    StopAsked,
    advance,
)

log = logging.getLogger("sage.gateway")

STARTING_PAUSE_S = 0.05
DRAIN_S = 10.0


class Pool:
    """All models. ``start`` returns at once; replicas become ready on their own.

    Raises:
        ConfigError: a model cannot be started as it is written; all of them are told.
    """

    def __init__(
        self, spec: PoolSpec, engines: Mapping[str, Engine], *, models: Path, logs: Path
    ) -> None:
        self.spec = spec
        self.models = models_of(spec, engines, models)
        self._aliases = {a: n for n, m in spec.models.items() for a in (n, *m.aliases)}
        self._logs = logs
        self._keepers: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None

    def find(self, name: str) -> Model | None:
        """The model of that name or alias."""
        known = self._aliases.get(name)
        return self.models[known] if known else None

    def members(self) -> Iterator[tuple[Model, Member]]:
        """Every replica with its model."""
        for model in self.models.values():
            for member in model.members:
                yield model, member

    async def start(self) -> None:
        """Begin to keep every replica alive."""
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        self._keepers = [self._keeper(model, member) for model, member in self.members()]

    async def close(self) -> None:
        """Drain every replica for at most ``DRAIN_S`` seconds and end its process."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(self._end(model, member) for model, member in self.members()))
        if self._session is not None:
            await self._session.close()

    def _keeper(self, model: Model, member: Member) -> "asyncio.Task[None]":
        keeper = asyncio.create_task(self._keep(model, member), name=member.replica.name)
        keeper.add_done_callback(_told_if_broken)
        return keeper

    async def _keep(self, model: Model, member: Member) -> None:
        while True:
            await self._launch(model, member)
            await self._watch(model, member)
            if member.process is not None:
                await process.kill(member.process)
            await asyncio.sleep(max(0.0, member.replica.retry_at_s - time.monotonic()))
            self._see(model, member, Started())

    async def _launch(self, model: Model, member: Member) -> None:
        member.process = None
        member.breaker = renewed(member.breaker)
        try:
            member.launch = replace(member.launch, port=process.free_port())
            line = model.engine.argv(member.launch)
            member.process = await process.start(line, model.engine.env, self._log(member))
        except OSError as error:  # no memory, no descriptors
            self._see(model, member, NotStarted(str(error)))
        except Exception as error:  # the engine's own code: tried again later, as if it had died
            log.exception("%s: engine %s is broken", member.replica.name, model.spec.engine)
            self._see(model, member, NotStarted(repr(error)))

    async def _watch(self, model: Model, member: Member) -> None:
        """Return when the replica has failed."""
        if member.process is None:
            return
        ended = asyncio.create_task(member.process.wait())
        try:
            while member.replica.state in (State.STARTING, State.READY):
                await self._pause(model, member, ended)
                if ended.done():
                    self._see(model, member, Exited(ended.result()))
                else:
                    self._see(model, member, Probed(await self._healthy(model, member)))
        finally:
            ended.cancel()

    async def _pause(self, model: Model, member: Member, ended: "asyncio.Task[int]") -> None:
        """Until the next check is due: at once when the process ends or the proxy has a doubt."""
        ready = member.replica.state is State.READY
        pause = model.spec.health.interval_s if ready else STARTING_PAUSE_S
        nudged = asyncio.create_task(member.nudge.wait())
        await asyncio.wait({ended, nudged}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        nudged.cancel()
        member.nudge.clear()

    async def _healthy(self, model: Model, member: Member) -> bool:
        assert self._session is not None
        limit = aiohttp.ClientTimeout(total=model.spec.health.timeout_s)
        try:
            url = member.url(model.engine.health_path)
            async with self._session.get(url, timeout=limit, allow_redirects=False) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _end(self, model: Model, member: Member) -> None:
        self._see(model, member, StopAsked())
        limit = time.monotonic() + DRAIN_S
        while member.in_flight and time.monotonic() < limit:  # noqa: ASYNC110 - a count, no event
            await asyncio.sleep(0.05)
        code = await process.stop(member.process) if member.process else 0
        self._see(model, member, Exited(code))

    def _see(self, model: Model, member: Member, event: Event) -> None:
        before = member.replica
        member.replica = advance(before, event, time.monotonic(), model.spec.health)
        after = member.replica
        if isinstance(event, Probed):
            member.suspect = not event.healthy
        model.queue.pump()
        if after.state is not before.state:
            level = logging.WARNING if after.state is State.FAILED else logging.INFO
            why = f" ({after.reason})" if after.reason else ""
            if after.state is State.FAILED and member.process is not None:
                why += f"; what it said: {self._log(member)}"
            log.log(level, "%s: %s -> %s%s", after.name, before.state, after.state, why)

    def _log(self, member: Member) -> Path:
        return self._logs / f"engine-{member.replica.name.replace('/', '-')}.log"


def _told_if_broken(keeper: "asyncio.Task[None]") -> None:
    if not keeper.cancelled() and (error := keeper.exception()):
        message = "%s: nobody keeps this replica any more; restart the gateway"
        log.critical(message, keeper.get_name(), exc_info=error)
