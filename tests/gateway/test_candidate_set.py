"""The candidate set equals an evaluation of all replicas from scratch."""

from bisect import insort
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.capacity.memory_budget import Footprint
from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.engines import ENGINES, Launch
from sage_gateway.models.model import Model
from sage_gateway.models.replica_slot import ReplicaSlot
from sage_gateway.replicas.circuit_breaker import Breaker, Circuit
from sage_gateway.replicas.lifecycle import ReplicaState, new_replica
from sage_gateway.routing import eligible
from sage_gateway.routing.candidate_set import CandidateSet
from sage_gateway.scheduling import ConcurrencyLimit

NOW_S = 100.0
slot_number = st.integers(0, 5)
changes = st.lists(
    st.one_of(
        st.tuples(
            st.just("state"), slot_number, st.sampled_from([ReplicaState.READY, *ReplicaState])
        ),
        st.tuples(st.just("in_flight"), slot_number, st.integers(0, 4)),
        st.tuples(st.just("missed"), slot_number, st.integers(0, 1)),
        st.tuples(st.just("suspect"), slot_number, st.booleans()),
        st.tuples(st.just("concurrency"), slot_number, st.integers(1, 4)),
        st.tuples(st.just("circuit"), slot_number, st.sampled_from(list(Circuit))),
        st.tuples(st.just("later"), slot_number, st.floats(0, 5)),
        st.tuples(st.just("remove"), slot_number, st.none()),
        st.tuples(st.just("add"), slot_number, st.none()),
    ),
    max_size=40,
)


class ReplicaSet:
    """Ready replica slots with a candidate set, and one change of them after another."""

    def __init__(self, count: int) -> None:
        self.slots: list[ReplicaSlot] = []
        self.candidates = CandidateSet(self.slots)
        for index in range(count):
            self.add(index)

    def add(self, index: int) -> None:
        slot = ready_slot(index, self.candidates)
        insort(self.slots, slot, key=lambda one: one.index)
        self.candidates.reset()

    def remove(self, slot: ReplicaSlot) -> None:
        self.slots.remove(slot)
        self.candidates.reset()

    def change(self, what: str, at: int, value: Any, now_s: float) -> None:
        if what == "add":
            used = {slot.index for slot in self.slots}
            self.add(next(i for i in range(at, at + len(used) + 1) if i not in used))
        if not self.slots:
            return
        slot = self.slots[at % len(self.slots)]
        match what:
            case "state" | "missed":
                slot.set_replica(replace(slot.replica, **{what: value}))
            case "in_flight":
                while slot.in_flight != value:
                    (slot.acquire if slot.in_flight < value else slot.release)()
            case "suspect":
                slot.set_suspect(value)
            case "concurrency":
                slot.set_limit(ConcurrencyLimit(value))
            case "circuit":
                slot.set_breaker(Breaker(value, retry_at_s=now_s + 2.0, trials=at))
            case "remove":
                self.remove(slot)


def ready_slot(index: int, candidates: CandidateSet) -> ReplicaSlot:
    spec = ModelSpec(engine="fake", kind="chat", concurrency=3)
    launch = Launch("talk", spec, None, 1, Path("python"))
    replica = replace(new_replica(f"talk/{index}", 0.0), state=ReplicaState.READY)
    return ReplicaSlot(replica, launch, index, candidates.changes)


@given(changes=changes, tried=st.sets(st.integers(0, 5)))
def test_a_candidate_set_equals_all_eligible_replicas_after_any_changes(
    changes: Sequence[tuple[str, int, Any]], tried: set[int]
) -> None:
    replicas, now_s = ReplicaSet(4), NOW_S
    candidates = replicas.candidates

    for what, at, value in changes:
        now_s += value if what == "later" else 0.0
        replicas.change(what, at, value, now_s)

        all_ = [slot.candidate(now_s) for slot in replicas.slots]
        ready = [slot for slot in replicas.slots if slot.replica.state is ReplicaState.READY]
        first_tier = [slot for slot in ready if not slot.is_degraded(now_s)] or ready
        assert list(candidates.available((), now_s)) == eligible(all_)
        assert list(candidates.available(tried, now_s)) == eligible(all_, tried=tried)
        assert candidates.room(now_s) == sum(slot.room() for slot in first_tier)
        assert candidates.ready(now_s) == len(ready)


def test_a_removed_replica_does_not_change_the_candidate_set() -> None:
    replicas = ReplicaSet(2)
    removed = replicas.slots[1]
    replicas.candidates.room(NOW_S)

    replicas.remove(removed)
    replicas.candidates.room(NOW_S)
    for _ in range(3):
        removed.acquire()

    assert replicas.candidates.room(NOW_S) == 3
    assert len(replicas.candidates.available((), NOW_S)) == 1


def test_requests_change_the_free_slots_of_a_model() -> None:
    launch = ReplicaSet(1).slots[0].launch
    model = Model("talk", launch.spec, ENGINES["fake"], launch, Footprint("talk", 1, 1, 0, 0))
    slot = model.slot(0)
    slot.set_replica(replace(slot.replica, state=ReplicaState.READY))

    for _ in range(3):
        slot.acquire()
    full = model.choose(), model.has_room(0)
    slot.release()

    assert full == (None, False)
    assert (model.choose(), model.has_room(0), model.has_room(1)) == (0, True, False)
