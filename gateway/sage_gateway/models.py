"""The models of a pool, made from their specs: all that can be wrong is found before a start."""

import asyncio
import os
import shutil
import time
from bisect import insort
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path

import aiohttp

from sage_flink.common import ConfigError
from sage_gateway import process, weights
from sage_gateway.breaker import Breaker, trusted
from sage_gateway.budget import MIB, Need
from sage_gateway.egress import Target, target
from sage_gateway.engines import Engine, Launch
from sage_gateway.pool_file import mistakes
from sage_gateway.pool_spec import ModelSpec, PoolSpec
from sage_gateway.process import Process
from sage_gateway.replicas import Replica, born
from sage_gateway.roster import Roster, Seen
from sage_gateway.routing import NO_HINTS, Candidate, Hints, Router
from sage_gateway.scaling.load import Load
from sage_gateway.scheduling import POLICIES, Bounds, Limit, Queue

_ROUTED = frozenset({"replica", "in_flight", "concurrency", "suspect", "breaker"})


@dataclass(slots=True, eq=False)
class Member:
    """A replica with what runs behind it. Only its keeper writes ``replica``.

    ``place`` is its number in the model for as long as it lives; routing knows it by that.
    ``concurrency`` is how many requests it takes at a time, of ``limit`` where that is measured.
    ``session`` and ``headers`` are for asking a remote one.
    ``suspect``: a request was lost there since it was last checked. ``freed`` is called when a
    request has left. ``changed``: where it enters itself when anything that routing sees is set.
    """

    changed: set[Seen] = field(init=False, default_factory=set)  # first: what follows enters
    replica: Replica
    launch: Launch
    place: int = 0
    process: Process | None = None
    launched_s: float = 0.0
    record: Path | None = None
    session: aiohttp.ClientSession | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
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
        to = self.launch.target
        base = f"http://127.0.0.1:{self.launch.port}" if to is None else str(to.url).rstrip("/")
        return base + path

    def candidate(self, now_s: float) -> Candidate:
        """This replica as routing sees it."""
        state, load = self.replica.state, self.in_flight
        return Candidate(self.place, state, load, self.doubted(now_s), load < self.concurrency)


@dataclass(slots=True, eq=False)
class Model:
    """A model of the pool: its spec, its engine, its replicas, who chooses and who waits.

    ``members`` are in the order of their places; ``wanted`` is how many there are to be. ``launch``
    is what a new one starts with, ``need`` what one takes. ``load`` is what it did so far.
    """

    name: str
    spec: ModelSpec
    engine: Engine
    launch: Launch
    need: Need
    members: list[Member] = field(default_factory=list)
    wanted: int = field(init=False)
    load: Load = field(default_factory=Load)
    queue: Queue = field(init=False)
    router: Router = field(init=False)
    _roster: Roster = field(init=False)

    def __post_init__(self) -> None:
        spec = self.spec
        bounds = Bounds(spec.queue_max, spec.queue_timeout_s)
        policy = POLICIES[spec.policy]()
        self.queue = Queue(
            self.name,
            policy,
            bounds,
            room=self.room_beyond,
            ready=self.ready,
            spare=self.spare_beyond,
        )
        self.router = Router(spec)
        self._roster = Roster(self.members)
        self.wanted = spec.replicas
        for place in range(self.wanted):
            self.enlist(place)

    def enlist(self, place: int) -> Member:
        """A new member at ``place``, which is free."""
        replica = born(f"{self.name}/{place}", time.monotonic())
        limit = None if self.spec.concurrency else Limit()
        member = Member(replica, self.launch, place, limit=limit, freed=self.queue.pump)
        insort(self.members, member, key=lambda m: m.place)
        return member

    def at(self, place: int) -> Member:
        """The member at ``place``."""
        return next(member for member in self.members if member.place == place)

    def turn(self, other: "Model") -> None:
        """Be as ``other``, of the same name, from now on; members that are there stay as they are.

        Who waits goes on waiting, so both have the same queue policy and bounds.
        """
        self.spec, self.engine, self.launch = other.spec, other.engine, other.launch
        self.need = other.need
        self.router, self.wanted = other.router, other.wanted

    def upstream(self) -> str:
        """What its engines call it."""
        return self.spec.remote_model or self.name

    def choose(self, hints: Hints = NO_HINTS, tried: Collection[int] = ()) -> int | None:
        """The place of the replica for the next request, None when none has room."""
        return self.router.among(self._roster.open(tried, time.monotonic()), hints)

    def room_beyond(self, taken: int) -> bool:
        """Whether the replicas have room for more than ``taken`` requests.

        As in ``choose``, that of a doubted one counts only where all are.
        """
        return self._roster.room(time.monotonic()) > taken

    def spare_beyond(self, taken: int) -> bool:
        """Whether background work finds room beyond ``taken``, and is computed on at once.

        A generation in no slot would only keep others from one, in the engine's own queue.
        """
        if self.spec.kind == "chat":
            busy = sum(m.in_flight for m in self.members) + taken
            if busy >= self.spec.slots * self.ready():
                return False
        return self.room_beyond(taken)

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
            found[name] = model_of(name, model, engines[model.engine], folder, spec.engine_hosts)
        except ConfigError as error:
            wrong.append(f"models.{name}: {error}")
    if wrong:
        raise mistakes("pool", wrong)
    return found


def model_of(
    name: str, spec: ModelSpec, engine: Engine, folder: Path, hosts: Collection[str] = ()
) -> Model:
    """One model, checked; ``hosts`` are those where a remote engine may be.

    Raises:
        ConfigError: it cannot be started as it is written.
    """
    if spec.kind not in engine.kinds:
        serves = " and ".join(sorted(engine.kinds))
        raise ConfigError(f"engine {spec.engine} serves kind {serves}, not {spec.kind}")
    if engine.remote:
        launch = Launch(name, spec, None, 0, Path(), _target(spec, hosts))
        return Model(name, spec, engine, launch, _need(launch))
    source = _source(spec, engine, folder)
    python = process.interpreter(engine.environment, engine.made_by)
    launch = Launch(name, spec, source, process.free_port(), python)
    _check_program(engine, launch)
    return Model(name, spec, engine, launch, _need(launch))


def _need(launch: Launch) -> Need:
    """Of one replica; an engine without weights is taken to need nothing."""
    spec, source = launch.spec, launch.source
    if source is None:
        return Need(launch.model, 1, 0, 0, 0)
    if spec.gpu_memory_mb:
        return Need(launch.model, 1, spec.threads, 0, 0, spec.gpu_memory_mb)
    tokens = spec.context_tokens * spec.slots if spec.kind == "chat" else 0
    kv_mb = ceil(tokens * weights.kv_bytes(source) / MIB)
    return Need(launch.model, 1, spec.threads, ceil(weights.size_bytes(source) / MIB), kv_mb)


def _target(spec: ModelSpec, hosts: Collection[str]) -> Target:
    if spec.source is None:
        raise ConfigError("engine remote needs a source, its base URL as https://HOST/v1")
    if spec.key_env and spec.key_env not in os.environ:
        raise ConfigError(f"key_env: there is no variable {spec.key_env}; set it, or remove this")
    return target(spec.source, hosts, spec.key_env)


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
