"""The models of a pool, made from their specs: all that can be wrong is found before a start."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sage_flink.common import ConfigError
from sage_gateway import process
from sage_gateway.engines import Engine, Launch
from sage_gateway.pool_spec import ModelSpec, PoolSpec, mistakes
from sage_gateway.replicas import Replica, State, born
from sage_gateway.routing import Candidate, least_in_flight


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


@contextlib.contextmanager
def counted(member: Member) -> Iterator[None]:
    """The request counts as in flight at ``member`` while the block runs."""
    member.in_flight += 1
    try:
        yield
    finally:
        member.in_flight -= 1


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
    return Model(name, spec, engine, members)


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
