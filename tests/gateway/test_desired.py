"""What is to be done for a model, as a table and as laws over every small model there can be."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.replicas.lifecycle import LIVE, State
from sage_gateway.replicas.reconciler import Seat, Step, step

S, R, D, F, X = State.STARTING, State.READY, State.DRAINING, State.FAILED, State.STOPPED


def seats(*states: State, leaving: Sequence[int] = ()) -> list[Seat]:
    return [Seat(place, state, place in leaving) for place, state in enumerate(states)]


@pytest.mark.parametrize(
    ("now", "wanted", "todo"),
    [
        ([], 2, Step(start=(0, 1))),
        (seats(R, R), 2, Step()),
        (seats(R), 3, Step(start=(1, 2))),
        ([Seat(1, R)], 3, Step(start=(0, 2))),
        (seats(R, R, R), 1, Step(drain=(2, 1))),
        (seats(F, S, R), 1, Step(drain=(0, 1))),
        (seats(R, D), 2, Step(start=(2,))),
        (seats(R, D, X), 1, Step()),
        (seats(R, R, leaving=[0]), 2, Step(start=(2,))),
        (seats(R, R, S, leaving=[0]), 2, Step()),
        (seats(R, R, R, leaving=[0]), 2, Step(drain=(0,))),
        (seats(F, S, leaving=[0]), 1, Step(drain=(0,))),
        (seats(R, leaving=[0]), 1, Step(start=(1,))),
        (seats(R, F, leaving=[0]), 1, Step()),
        (seats(R, S, leaving=[0]), 0, Step(drain=(1, 0))),
        (seats(R, R), 0, Step(drain=(1, 0))),
    ],
)
def test_what_is_missing_is_started_and_what_serves_least_goes_first(
    now: list[Seat], wanted: int, todo: Step
) -> None:
    assert step(now, wanted, waiting=False) == todo


def test_the_last_ready_one_stays_until_nobody_waits() -> None:
    assert step(seats(R, R), 0, waiting=True) == Step(drain=(1,))
    assert step(seats(R), 0, waiting=True) == Step()
    assert step(seats(R), 0, waiting=False) == Step(drain=(0,))


MODELS = st.lists(st.tuples(st.sampled_from(list(State)), st.booleans()), max_size=6)


@given(rows=MODELS, wanted=st.integers(0, 6), waiting=st.booleans())
def test_of_the_ready_ones_never_fewer_remain_than_are_wanted(
    rows: list[tuple[State, bool]], wanted: int, waiting: bool
) -> None:
    now = [Seat(i, state, leaving) for i, (state, leaving) in enumerate(rows)]

    todo = step(now, wanted, waiting=waiting)

    ready = {seat.place for seat in now if seat.state is R}
    left = ready - set(todo.drain)
    assert len(left) >= min(len(ready), wanted)
    assert left or not (ready and waiting)
    assert {now[place].state for place in todo.drain} <= LIVE
    assert not set(todo.start) & {seat.place for seat in now}


def test_what_is_done_is_not_asked_for_again_and_all_ends_as_wanted() -> None:
    kinds = list(itertools.product(State, (False, True)))
    for rows in itertools.chain.from_iterable(
        itertools.product(kinds, repeat=size) for size in range(4)
    ):
        for wanted in range(3):
            now = [Seat(i, state, leaving) for i, (state, leaving) in enumerate(rows)]
            for _ in range(2):  # what starts, or is started again, is ready after the first turn
                todo = step(now, wanted, waiting=False)
                now = [s for s in now if s.place not in todo.drain] + [
                    Seat(place, R) for place in todo.start
                ]
                now = [s._replace(state=R) for s in now if s.state in LIVE]
            assert step(now, wanted, waiting=False) == Step()
            assert len(now) == wanted
