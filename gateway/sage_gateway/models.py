"""The models of a pool, made from their specs: all that can be wrong is found before a start."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sage_flink.common import ConfigError
from sage_gateway import process
from sage_gateway.engines import Engine, Launch
from sage_gateway.pool_spec import ModelSpec, PoolSpec, mistakes
from sage_gateway.replicas import Replica, State, born
from sage_gateway.routing import Candidate, least_in_flight
from sage_gateway.scheduling import POLICIES, Bounds, Limit, Queue, limit
from sage_gateway.wire import ApiError


@dataclass(slots=True, eq=False)
class Member:
    """A replica with what runs behind it. Only the pool writes ``replica``.

    ``concurrency`` is how many requests it takes at a time, of ``limit`` where that is measured.
    ``suspect``: a request was lost there since it was last checked. ``freed`` is called when a
    request has left.
    """

    replica: Replica
    launch: Launch
    process: asyncio.subprocess.Process | None = None
    in_flight: int = 0
    limit: Limit | None = None
    concurrency: int = field(init=False)
    suspect: bool = False
    freed: Callable[[], None] = lambda: None
    nudge: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.concurrency = self.launch.spec.concurrency_max
        if self.limit is not None:
            self.limited(self.limit)

    def limited(self, now: Limit) -> None:
        """Its measured limit is now another."""
        self.limit, self.concurrency = now, now.concurrency

    def room(self) -> int:
        """How many more requests it takes now; of one that is not ready, none."""
        if self.replica.state is not State.READY:
            return 0
        return max(0, self.concurrency - self.in_flight)

    def doubted(self) -> bool:
        """Whether it is the last choice rather than a choice."""
        return self.suspect or self.replica.missed > 0

    def lost(self) -> None:
        """A request was lost there: it is checked at once, and doubted until then."""
        self.suspect = True
        self.nudge.set()

    def url(self, path: str) -> str:
        """The address of ``path`` at this replica."""
        return f"http://127.0.0.1:{self.launch.port}{path}"


@dataclass(slots=True, eq=False)
class Model:
    """A model of the pool: its spec, its engine, its replicas, and who waits for them."""

    name: str
    spec: ModelSpec
    engine: Engine
    members: list[Member]
    queue: Queue = field(init=False)

    def __post_init__(self) -> None:
        spec = self.spec
        bounds = Bounds(spec.queue_max, spec.queue_timeout_s)
        policy = POLICIES[spec.policy]()
        self.queue = Queue(self.name, policy, bounds, room=self.room_beyond, ready=self.ready)
        for member in self.members:
            member.freed = self.queue.pump

    def choose(self, tried: Collection[int] = ()) -> int | None:
        """The index of the replica for the next request, None when none has room."""
        trusted = self._trusted()
        seen = [
            Candidate(i, m.replica.state, m.replica.missed, m.in_flight)
            for i, m in enumerate(self.members)
            if m.in_flight < m.concurrency and not (trusted and m.doubted())
        ]
        return least_in_flight(seen, tried=tried, concurrency=self.spec.concurrency_max)

    def room_beyond(self, taken: int) -> bool:
        """Whether the replicas have room for more than ``taken`` requests.

        That of a doubted one counts only where all are: a dead one, which seems to have room again
        and again, would draw all who wait before it is found dead.
        """
        trusted = self._trusted()
        for member in self.members:
            if not (trusted and member.doubted()):
                taken -= member.room()
                if taken < 0:
                    return True
        return False

    def ready(self) -> int:
        """How many replicas take requests."""
        return sum(m.replica.state is State.READY for m in self.members)

    def _trusted(self) -> bool:
        return any(m.replica.state is State.READY and not m.doubted() for m in self.members)


@contextlib.contextmanager
def counted(member: Member) -> Iterator[Callable[[], None]]:
    """The request counts as in flight at ``member`` while the block runs.

    The block is given what to call once the answer is finished: a measured limit learns how long
    it took.
    """
    member.in_flight += 1
    begun_s = time.perf_counter()

    def finished() -> None:
        if member.limit is not None:
            seconds = time.perf_counter() - begun_s
            member.limited(limit.answered(member.limit, seconds, member.in_flight))

    try:
        yield finished
    except ApiError:
        raise
    except Exception:  # lost, or out of time
        if member.limit is not None:
            member.limited(limit.lost(member.limit))
        raise
    finally:
        member.in_flight -= 1
        member.freed()


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
    start = None if spec.concurrency else Limit()
    born_ = (born(f"{name}/{i}", now) for i in range(spec.replicas))
    members = [Member(replica, launch, limit=start) for replica in born_]
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
