"""The models of a pool, made from their specs: all that can be wrong is found before a start."""

import asyncio
import shutil
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sage_flink.common import ConfigError
from sage_gateway import process
from sage_gateway.breaker import Breaker, trusted
from sage_gateway.engines import Engine, Launch
from sage_gateway.pool_spec import ModelSpec, PoolSpec, mistakes
from sage_gateway.replicas import Replica, born
from sage_gateway.roster import Roster, Seen
from sage_gateway.routing import NO_HINTS, Candidate, Hints, Router
from sage_gateway.scheduling import POLICIES, Bounds, Limit, Queue

_ROUTED = frozenset({"replica", "in_flight", "concurrency", "suspect", "breaker"})


@dataclass(slots=True, eq=False)
class Member:
    """A replica with what runs behind it. Only the pool writes ``replica``.

    ``concurrency`` is how many requests it takes at a time, of ``limit`` where that is measured.
    ``suspect``: a request was lost there since it was last checked. ``freed`` is called when a
    request has left. ``changed``: where it enters itself when anything that routing sees is set.
    """

    changed: set[Seen] = field(init=False, default_factory=set)  # first: what follows enters
    replica: Replica
    launch: Launch
    process: asyncio.subprocess.Process | None = None
    in_flight: int = 0
    limit: Limit | None = None
    concurrency: int = field(init=False)
    suspect: bool = False
    freed: Callable[[], None] = lambda: None
    breaker: Breaker = field(default_factory=Breaker)
    nudge: asyncio.Event = field(default_factory=asyncio.Event)

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        if name in _ROUTED:
            self.changed.add(self)

    def __post_init__(self) -> None:
        self.concurrency = self.launch.spec.concurrency_max
        if self.limit is not None:
            self.limited(self.limit)

    def limited(self, now: Limit) -> None:
        """Its measured limit is now another."""
        self.limit, self.concurrency = now, now.concurrency

    def room(self) -> int:
        """How many more requests it takes now."""
        return max(0, self.concurrency - self.in_flight)

    def doubted(self, now_s: float) -> bool:
        """Whether it is the last choice rather than a choice.

        It lost a request or missed a check since one was passed, or its circuit is not closed.
        """
        return self.suspect or self.replica.missed > 0 or not trusted(self.breaker, now_s)

    def lost(self) -> None:
        """A request was lost there: it is checked at once, and doubted until then."""
        self.suspect = True
        self.nudge.set()

    def url(self, path: str) -> str:
        """The address of ``path`` at this replica."""
        return f"http://127.0.0.1:{self.launch.port}{path}"

    def candidate(self, index: int, now_s: float) -> Candidate:
        """This replica, the ``index``-th of its model, as routing sees it."""
        state, load = self.replica.state, self.in_flight
        return Candidate(index, state, load, self.doubted(now_s), load < self.concurrency)


@dataclass(slots=True, eq=False)
class Model:
    """A model of the pool: its spec, its engine, its replicas, who chooses and who waits."""

    name: str
    spec: ModelSpec
    engine: Engine
    members: list[Member]
    queue: Queue = field(init=False)
    router: Router = field(init=False)
    _roster: Roster = field(init=False)

    def __post_init__(self) -> None:
        spec = self.spec
        bounds = Bounds(spec.queue_max, spec.queue_timeout_s)
        policy = POLICIES[spec.policy]()
        self.queue = Queue(self.name, policy, bounds, room=self.room_beyond, ready=self.ready)
        self.router = Router(spec)
        self._roster = Roster(self.members)
        for member in self.members:
            member.freed = self.queue.pump

    def choose(self, hints: Hints = NO_HINTS, tried: Collection[int] = ()) -> int | None:
        """The index of the replica for the next request, None when none has room."""
        return self.router.among(self._roster.open(tried, time.monotonic()), hints)

    def room_beyond(self, taken: int) -> bool:
        """Whether the replicas have room for more than ``taken`` requests.

        As in ``choose``, that of a doubted one counts only where all are.
        """
        return self._roster.room(time.monotonic()) > taken

    def ready(self) -> int:
        """How many replicas take requests."""
        return self._roster.ready(time.monotonic())


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
