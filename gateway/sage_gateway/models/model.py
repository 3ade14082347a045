"""The models of a pool, made from their specs: all that can be wrong is found before a start."""

import asyncio
import time
from bisect import insort
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from sage_gateway.capacity.memory_budget import Need
from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.engines import Engine, Launch
from sage_gateway.engines.process import Process
from sage_gateway.models.load import Load
from sage_gateway.replicas.circuit_breaker import Breaker, trusted
from sage_gateway.replicas.lifecycle import Replica, born
from sage_gateway.routing import NO_HINTS, Candidate, Hints, Router
from sage_gateway.routing.candidate_set import Roster, Seen
from sage_gateway.scheduling import POLICIES, Bounds, Device, Limit, Queue, Use

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
    is what a new one starts with, ``need`` what one takes. ``load`` is what it did so far;
    ``device`` is shared with other models.
    """

    name: str
    spec: ModelSpec
    engine: Engine
    launch: Launch
    need: Need
    members: list[Member] = field(default_factory=list)
    wanted: int = field(init=False)
    load: Load = field(default_factory=Load)
    device: Device | None = None
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
            freed=self.freed,
            make_way=self.make_way,
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
        member = Member(replica, self.launch, place, limit=limit, freed=self.freed)
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
        room = self._roster.room(time.monotonic()) > taken
        return room and (self.device is None or self.device.room(self))

    def spare_beyond(self, taken: int) -> bool:
        """Whether background work finds room beyond ``taken``, and is computed on at once.

        A generation in no slot would only keep others from one, in the engine's own queue.
        """
        if self.spec.kind == "chat":
            busy = sum(m.in_flight for m in self.members) + taken
            if busy >= self.spec.slots * self.ready():
                return False
        return self.room_beyond(taken) and (self.device is None or self.device.calm(self))

    def ready(self) -> int:
        """How many replicas take requests."""
        return self._roster.ready(time.monotonic())

    def freed(self) -> None:
        """There may be room now for who waits, here or for another model of the device."""
        if self.device is not None:
            self.device.pump()
        self.queue.pump()

    def make_way(self, wanted: int) -> None:
        """Background work gives way to so many users who wait."""
        self.give_way(wanted)
        if self.device is not None:
            self.device.make_way(self, wanted)

    # What its device asks.

    def use(self) -> Use:
        """What it has of the device."""
        busy = sum(member.in_flight for member in self.members) + self.queue.on_their_way
        return Use(self.spec.share, busy, self.queue.ahead)

    def pump(self) -> None:
        """Let go as many as there is room for."""
        self.queue.pump()

    def give_way(self, wanted: int) -> None:
        """So many of its background requests give way, if there are."""
        self.queue.turns.give_way(wanted)
