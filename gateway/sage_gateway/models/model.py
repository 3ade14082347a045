"""A model of the pool: its replica slots, with the queue in front of them and the router."""

import time
from bisect import insort
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Protocol

from sage_gateway.capacity.memory_budget import Footprint
from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.engines import Engine, Launch
from sage_gateway.models.load import Load
from sage_gateway.models.replica_slot import ReplicaSlot
from sage_gateway.replicas.lifecycle import new_replica
from sage_gateway.routing import NO_HINTS, Router, RoutingHints
from sage_gateway.routing.candidate_set import CandidateSet
from sage_gateway.scheduling import (
    POLICIES,
    ConcurrencyLimit,
    DeviceUsage,
    Queue,
    QueueLimits,
    SharedDevice,
)


class ScaleUp(Protocol):
    """The autoscaling of a model, as far as its queue needs it."""

    def expects_replica(self) -> bool:
        """Whether a replica of a model without ready ones is starting, or starts on this call."""


@dataclass(slots=True, eq=False)
class Model:
    """A model of the pool.

    ``replica_slots``: in the order of their index; ``wanted``: how many there should be.
    ``launch``: what a new replica starts with; ``footprint``: what one replica takes. ``load``: its
    counters. ``device``: shared with other models. ``scale_up``: its autoscaling, if any.
    """

    name: str
    spec: ModelSpec
    engine: Engine
    launch: Launch
    footprint: Footprint
    replica_slots: list[ReplicaSlot] = field(default_factory=list)
    wanted: int = field(init=False)
    load: Load = field(default_factory=Load)
    device: SharedDevice | None = None
    scale_up: ScaleUp | None = None
    queue: Queue = field(init=False)
    router: Router = field(init=False)
    _candidates: CandidateSet = field(init=False)

    def __post_init__(self) -> None:
        spec = self.spec
        self.queue = Queue(
            self.name,
            POLICIES[spec.policy](),
            QueueLimits(spec.queue_max, spec.queue_timeout_s),
            has_room=self.has_room,
            ready_replicas=self.ready,
            has_background_room=self.has_background_room,
            expects_replica=self.expects_replica,
            on_room_freed=self.on_room_freed,
            on_demand=self.preempt_for_queued,
        )
        self.router = Router(spec)
        self._candidates = CandidateSet(self.replica_slots)
        self.wanted = spec.replicas
        for index in range(self.wanted):
            self.add_slot(index)

    def add_slot(self, index: int) -> ReplicaSlot:
        """A new replica slot at ``index``, which is free."""
        slot = ReplicaSlot(
            new_replica(f"{self.name}/{index}", time.monotonic()),
            self.launch,
            index,
            self._candidates.changes,
            limit=None if self.spec.concurrency else ConcurrencyLimit(),
            on_room_freed=self.on_room_freed,
        )
        insort(self.replica_slots, slot, key=attrgetter("index"))
        self._candidates.reset()
        return slot

    def remove_slot(self, slot: ReplicaSlot) -> None:
        """Remove a replica slot."""
        self.replica_slots.remove(slot)
        self._candidates.reset()

    def clear_slots(self) -> None:
        """Remove all replica slots."""
        self.replica_slots.clear()
        self._candidates.reset()

    def slot(self, index: int) -> ReplicaSlot:
        """The replica slot at ``index``."""
        return next(slot for slot in self.replica_slots if slot.index == index)

    def reconfigure(self, other: "Model") -> None:
        """Take over the spec of ``other``, of the same name; replicas that exist are unchanged.

        Queued requests stay queued, so both have the same queue policy and limits.
        """
        self.spec, self.engine, self.launch = other.spec, other.engine, other.launch
        self.footprint = other.footprint
        self.router, self.wanted = other.router, other.wanted

    def engine_model_name(self) -> str:
        """The name of the model at its engines."""
        return self.spec.remote_model or self.name

    def joined_fields(self) -> Mapping[str, Any] | None:
        """Fields that make a whole answer a stream to be joined, if it has to be one."""
        if not self.engine.remote:
            return self.engine.joined
        return next((slot.joined for slot in self.replica_slots if slot.joined), None)

    def choose(self, hints: RoutingHints = NO_HINTS, tried: Collection[int] = ()) -> int | None:
        """The index of the replica for the next request, None when no replica has room."""
        candidates = self._candidates.available(tried, time.monotonic())
        return self.router.choose_among(candidates, hints)

    def has_room(self, taken: int) -> bool:
        """Whether the replicas have room for more than ``taken`` requests.

        As in ``choose``, the room of a degraded replica counts only when all are degraded.
        """
        room = self._candidates.room(time.monotonic()) > taken
        return room and (self.device is None or self.device.has_room(self))

    def has_background_room(self, taken: int) -> bool:
        """Whether a background request finds room beyond ``taken``, and a free slot of an engine.

        A generation without a slot would only take one from others, in the engine's own queue.
        """
        if self.spec.kind == "chat":
            busy = sum(slot.in_flight for slot in self.replica_slots) + taken
            if busy >= self.spec.slots * self.ready():
                return False
        device = self.device
        return self.has_room(taken) and (device is None or device.has_background_room(self))

    def ready(self) -> int:
        """The number of replicas that take requests."""
        return self._candidates.ready(time.monotonic())

    def expects_replica(self) -> bool:
        """Whether a replica is starting; autoscaling starts one for a model at zero."""
        return self.scale_up is not None and self.scale_up.expects_replica()

    def on_room_freed(self) -> None:
        """Dispatch queued requests of this model and of the others on its device."""
        if self.device is not None:
            self.device.dispatch()
        self.queue.dispatch()

    def preempt_for_queued(self, count: int) -> None:
        """Preempt background requests for ``count`` queued foreground requests."""
        self.preempt_background(count)
        if self.device is not None:
            self.device.preempt_for(self, count)

    # DeviceModel: what its device calls.

    def device_usage(self) -> DeviceUsage:
        """Its use of the device."""
        busy = sum(slot.in_flight for slot in self.replica_slots) + self.queue.dispatching
        return DeviceUsage(self.spec.share, busy, self.queue.foreground_count)

    def dispatch(self) -> None:
        """Dispatch as many queued requests as there is room for."""
        self.queue.dispatch()

    def preempt_background(self, count: int) -> None:
        """Preempt up to ``count`` of its background requests."""
        self.queue.preemptible.preempt_until(count)
