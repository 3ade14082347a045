"""The reconciler, as a table and as laws over every small model."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.replicas.lifecycle import LIVE, ReplicaState
from sage_gateway.replicas.reconciler import ReconcileActions, SlotView, reconcile

S, R, D, F, X = (
    ReplicaState.STARTING,
    ReplicaState.READY,
    ReplicaState.DRAINING,
    ReplicaState.FAILED,
    ReplicaState.STOPPED,
)


def slots(*states: ReplicaState, leaving: Sequence[int] = ()) -> list[SlotView]:
    return [SlotView(index, state, index in leaving) for index, state in enumerate(states)]


@pytest.mark.parametrize(
    ("now", "wanted", "todo"),
    [
        ([], 2, ReconcileActions(start=(0, 1))),
        (slots(R, R), 2, ReconcileActions()),
        (slots(R), 3, ReconcileActions(start=(1, 2))),
        ([SlotView(1, R)], 3, ReconcileActions(start=(0, 2))),
        (slots(R, R, R), 1, ReconcileActions(drain=(2, 1))),
        (slots(F, S, R), 1, ReconcileActions(drain=(0, 1))),
        (slots(R, D), 2, ReconcileActions(start=(2,))),
        (slots(R, D, X), 1, ReconcileActions()),
        (slots(R, R, leaving=[0]), 2, ReconcileActions(start=(2,))),
        (slots(R, R, S, leaving=[0]), 2, ReconcileActions()),
        (slots(R, R, R, leaving=[0]), 2, ReconcileActions(drain=(0,))),
        (slots(F, S, leaving=[0]), 1, ReconcileActions(drain=(0,))),
        (slots(R, leaving=[0]), 1, ReconcileActions(start=(1,))),
        (slots(R, F, leaving=[0]), 1, ReconcileActions()),
        (slots(R, S, leaving=[0]), 0, ReconcileActions(drain=(1, 0))),
        (slots(R, R), 0, ReconcileActions(drain=(1, 0))),
    ],
)
def test_missing_replicas_are_started_and_the_least_useful_surplus_is_drained(
    now: list[SlotView], wanted: int, todo: ReconcileActions
) -> None:
    assert reconcile(now, wanted, waiting=False) == todo


def test_the_last_ready_replica_stays_until_the_queue_is_empty() -> None:
    assert reconcile(slots(R, R), 0, waiting=True) == ReconcileActions(drain=(1,))
    assert reconcile(slots(R), 0, waiting=True) == ReconcileActions()
    assert reconcile(slots(R), 0, waiting=False) == ReconcileActions(drain=(0,))


MODELS = st.lists(st.tuples(st.sampled_from(list(ReplicaState)), st.booleans()), max_size=6)


@given(rows=MODELS, wanted=st.integers(0, 6), waiting=st.booleans())
def test_never_fewer_ready_replicas_remain_than_are_wanted(
    rows: list[tuple[ReplicaState, bool]], wanted: int, waiting: bool
) -> None:
    now = [SlotView(i, state, leaving) for i, (state, leaving) in enumerate(rows)]

    todo = reconcile(now, wanted, waiting=waiting)

    ready = {slot.slot_index for slot in now if slot.state is R}
    left = ready - set(todo.drain)
    assert len(left) >= min(len(ready), wanted)
    assert left or not (ready and waiting)
    assert {now[index].state for index in todo.drain} <= LIVE
    assert not set(todo.start) & {slot.slot_index for slot in now}


def test_actions_are_not_repeated_and_reach_the_wanted_state() -> None:
    kinds = list(itertools.product(ReplicaState, (False, True)))
    for rows in itertools.chain.from_iterable(
        itertools.product(kinds, repeat=size) for size in range(4)
    ):
        for wanted in range(3):
            now = [SlotView(i, state, leaving) for i, (state, leaving) in enumerate(rows)]
            for _ in range(2):  # replicas that start or restart are ready after the first iteration
                todo = reconcile(now, wanted, waiting=False)
                now = [s for s in now if s.slot_index not in todo.drain] + [
                    SlotView(index, R) for index in todo.start
                ]
                now = [s._replace(state=R) for s in now if s.state in LIVE]
            assert reconcile(now, wanted, waiting=False) == ReconcileActions()
            assert len(now) == wanted
