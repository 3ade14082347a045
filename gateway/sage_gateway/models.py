"""The models of a pool, made from their specs: all that can be wrong is found before a start."""

import asyncio
import logging
import shutil
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sage_flink.common import ConfigError
from sage_gateway import process
from sage_gateway.breaker import Breaker, Circuit, answered, failed, left, sent, trusted
from sage_gateway.engines import Engine, Launch
from sage_gateway.pool_spec import ModelSpec, PoolSpec, mistakes
from sage_gateway.replicas import Replica, State, born
from sage_gateway.routing import NO_HINTS, Candidate, Hints, Router

log = logging.getLogger("sage.gateway")


@dataclass(slots=True, eq=False)
class Member:
    """A replica with what runs behind it. Only the pool writes ``replica``."""

    replica: Replica
    launch: Launch
    process: asyncio.subprocess.Process | None = None
    in_flight: int = 0
    breaker: Breaker = field(default_factory=Breaker)
    nudge: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str) -> str:
        """The address of ``path`` at this replica."""
        return f"http://127.0.0.1:{self.launch.port}{path}"

    def candidate(self, index: int, now_s: float) -> Candidate:
        """This replica, the ``index``-th of its model, as routing sees it."""
        replica = self.replica
        doubted = replica.missed > 0 or not trusted(self.breaker, now_s)
        return Candidate(index, replica.state, self.in_flight, doubted)


@dataclass(slots=True, eq=False)
class Model:
    """A model of the pool: its spec, its engine, its replicas, and who chooses among them."""

    name: str
    spec: ModelSpec
    engine: Engine
    members: list[Member]
    router: Router

    def choose(self, hints: Hints = NO_HINTS, tried: Collection[int] = ()) -> int | None:
        """The index of the replica for the next request, None when none has room."""
        now_s = time.monotonic()
        seen = [member.candidate(i, now_s) for i, member in enumerate(self.members)]
        return self.router.choose(seen, hints, tried=tried, concurrency=self.spec.concurrency)

    def ready(self) -> int:
        """How many replicas take requests."""
        return sum(m.replica.state is State.READY for m in self.members)


class Call:
    """One request at a replica: in flight while the block runs, and told to its breaker.

    What was not told by the end of the block is told by how it ends: an exception is a failure, but
    a cancelled call, or a block that just ends, says nothing about the replica.
    """

    __slots__ = ("_epoch", "_told", "member")

    def __init__(self, member: Member) -> None:
        self.member = member
        self._epoch = 0
        self._told = False

    def __enter__(self) -> "Call":
        member = self.member
        member.in_flight += 1
        member.breaker = sent(member.breaker, time.monotonic())
        self._epoch = member.breaker.epoch
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self.member.in_flight -= 1
        if self._told:
            return
        if isinstance(error, Exception):
            self.failed()
        else:
            self.member.breaker = left(self.member.breaker, self._epoch)

    def answered(self) -> None:
        """The engine has answered, or has begun to."""
        self._told = True
        self._turn(answered(self.member.breaker, self._epoch))

    def failed(self) -> None:
        """The engine did not answer, or has failed."""
        self._told = True
        self._turn(failed(self.member.breaker, self._epoch, time.monotonic()))

    def _turn(self, after: Breaker) -> None:
        before, self.member.breaker = self.member.breaker, after
        if after.circuit is before.circuit:
            return
        level = logging.WARNING if after.circuit is Circuit.OPEN else logging.INFO
        name = self.member.replica.name
        log.log(level, "%s: circuit %s -> %s", name, before.circuit, after.circuit)


def models_of(spec: PoolSpec, engines: Mapping[str, Engine], folder: Path) -> dict[str, Model]:
    """Every model by its name; relative sources lie below ``folder``.

    Raises:
        ConfigError: some cannot be started as they are written; all of them are told.
    """
    found: dict[str, Model] = {}
    wrong: list[str] = []
    for name, model in spec.models.items():
        try:
            found[name] = _model(name, model, engines[model.engine], folder)
        except ConfigError as error:
            wrong.append(f"models.{name}: {error}")
    if wrong:
        raise mistakes("pool", wrong)
    return found


def _model(name: str, spec: ModelSpec, engine: Engine, folder: Path) -> Model:
    if spec.kind not in engine.kinds:
        serves = " and ".join(sorted(engine.kinds))
        raise ConfigError(f"engine {spec.engine} serves kind {serves}, not {spec.kind}")
    source = _source(spec, engine, folder)
    python = process.interpreter(engine.environment, engine.made_by)
    launch = Launch(name, spec, source, process.free_port(), python)
    _check_program(engine, launch)
    now = time.monotonic()
    members = [Member(born(f"{name}/{i}", now), launch) for i in range(spec.replicas)]
    return Model(name, spec, engine, members, Router(spec))


def _source(spec: ModelSpec, engine: Engine, folder: Path) -> Path | None:
    if not engine.weights:
        if spec.source is not None:
            raise ConfigError(f"engine {spec.engine} has no weights; remove source")
        return None
    if spec.source is None:
        raise ConfigError(f"engine {spec.engine} needs a source, the file or folder of the weights")
    source = folder / spec.source
    if not source.exists():
        raise ConfigError(f"no source {source}; run `bash {engine.made_by}`, or correct it")
    return source


def _check_program(engine: Engine, launch: Launch) -> None:
    name = launch.spec.engine
    try:
        program = engine.argv(launch)[0]
    except ConfigError:
        raise
    except Exception as error:  # the engine's own code
        raise ConfigError(f"engine {name} gives no command line: {error!r}") from error
    if shutil.which(program, path=engine.env.get("PATH")) is None:
        raise ConfigError(f"no program {program} for engine {name}; install it or correct its path")
