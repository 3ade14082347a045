"""The owner of the replicas: starts, checks, restarts and stops what ``pool.yaml`` asks for.

One task a replica turns what it sees into events for :func:`sage_gateway.replicas.advance` and
does what the new state asks for. The data plane only chooses, counts and hints.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from sage_flink.common import ConfigError
from sage_gateway import process
from sage_gateway.engines import Engine, Launch
from sage_gateway.pool_spec import ModelSpec, PoolSpec
from sage_gateway.replicas import (
    Event,
    Exited,
    Probed,
    Replica,
    Started,
    State,
    StopAsked,
    advance,
    born,
)
from sage_gateway.routing import Candidate, least_in_flight

log = logging.getLogger("sage.gateway")

STARTING_PAUSE_S = 0.05
DRAIN_S = 10.0


@dataclass(slots=True, eq=False)
class Member:
    """A replica with what runs behind it. Only the pool writes ``replica``."""

    replica: Replica
    launch: Launch
    process: asyncio.subprocess.Process | None = None
    in_flight: int = 0
    nudge: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str) -> str:
        """The address of ``path`` at this replica."""
        return f"http://127.0.0.1:{self.launch.port}{path}"


@dataclass(slots=True, eq=False)
class Model:
    """A model of the pool: its spec, its engine, its replicas."""

    name: str
    spec: ModelSpec
    engine: Engine
    members: list[Member]

    def choose(self, tried: Collection[int] = ()) -> int | None:
        """The index of the replica for the next request, None when none has room."""
        seen = [
            Candidate(i, m.replica.state, m.replica.missed, m.in_flight)
            for i, m in enumerate(self.members)
        ]
        return least_in_flight(seen, tried=tried, concurrency=self.spec.concurrency)

    def ready(self) -> int:
        """How many replicas take requests."""
        return sum(m.replica.state is State.READY for m in self.members)


class Pool:
    """All models. ``start`` returns at once; replicas become ready on their own."""

    def __init__(
        self, spec: PoolSpec, engines: Mapping[str, Engine], *, models: Path, logs: Path
    ) -> None:
        self.spec = spec
        self.models = {n: _model(n, m, engines[m.engine], models) for n, m in spec.models.items()}
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
        self._keepers = [asyncio.create_task(self._keep(*pair)) for pair in self.members()]

    async def close(self) -> None:
        """Drain every replica for at most ``DRAIN_S`` seconds and end its process."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(self._end(model, member) for model, member in self.members()))
        if self._session is not None:
            await self._session.close()

    async def _keep(self, model: Model, member: Member) -> None:
        while True:
            await self._launch(model, member)
            await self._watch(model, member)
            if member.process is not None:
                await process.kill(member.process)
            await asyncio.sleep(max(0.0, member.replica.retry_at_s - time.monotonic()))
            self._see(model, member, Started())

    async def _launch(self, model: Model, member: Member) -> None:
        launch = Launch(
            member.launch.model,
            model.spec,
            member.launch.source,
            process.free_port(),
            member.launch.python,
        )
        member.launch = launch
        member.process = None
        file = self._logs / f"engine-{member.replica.name.replace('/', '-')}.log"
        try:
            member.process = await process.start(model.engine.argv(launch), model.engine.env, file)
        except OSError as error:  # no memory, no descriptors: as if it had died
            log.error("%s: cannot start: %s", member.replica.name, error)
            self._see(model, member, Exited(-1))

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
        if after.state is not before.state:
            level = logging.WARNING if after.state is State.FAILED else logging.INFO
            why = f" ({after.reason})" if after.reason else ""
            log.log(level, "%s: %s -> %s%s", after.name, before.state, after.state, why)


@contextlib.contextmanager
def counted(member: Member) -> Iterator[None]:
    """The request counts as in flight at ``member`` while the block runs."""
    member.in_flight += 1
    try:
        yield
    finally:
        member.in_flight -= 1


def _model(name: str, spec: ModelSpec, engine: Engine, models: Path) -> Model:
    if spec.kind not in engine.kinds:
        raise ConfigError(
            f"models.{name}: engine {engine.name} cannot serve kind {spec.kind}, only "
            f"{', '.join(sorted(engine.kinds))}"
        )
    source = models / spec.source
    if not source.exists():
        raise ConfigError(f"models.{name}.source: no {source}; run infra/setup.sh, or correct it")
    python = process.interpreter(engine.environment)
    now = time.monotonic()
    members = [
        Member(born(f"{name}/{i}", now), Launch(name, spec, source, 0, python))
        for i in range(spec.replicas)
    ]
    return Model(name, spec, engine, members)
