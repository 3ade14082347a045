"""What is kept of a model's replicas is what would be found by looking at all of them anew."""

from bisect import insort
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.capacity.memory_budget import Need
from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.engines import ENGINES, Launch
from sage_gateway.models.model import Member, Model
from sage_gateway.replicas.circuit_breaker import Breaker, Circuit
from sage_gateway.replicas.lifecycle import State, born
from sage_gateway.routing import eligible
from sage_gateway.routing.candidate_set import Roster

NOW_S = 100.0
member = st.integers(0, 5)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("state"), member, st.sampled_from([State.READY, *State])),
        st.tuples(st.just("in_flight"), member, st.integers(0, 4)),
        st.tuples(st.just("missed"), member, st.integers(0, 1)),
        st.tuples(st.just("suspect"), member, st.booleans()),
        st.tuples(st.just("concurrency"), member, st.integers(1, 4)),
        st.tuples(st.just("circuit"), member, st.sampled_from(list(Circuit))),
        st.tuples(st.just("later"), member, st.floats(0, 5)),
        st.tuples(st.just("leaves"), member, st.none()),
        st.tuples(st.just("comes"), member, st.none()),
    ),
    max_size=40,
)


def of(number: int) -> Member:
    spec = ModelSpec(engine="fake", kind="chat", concurrency=3)
    launch = Launch("talk", spec, None, 1, Path("python"))
    return Member(replace(born(f"talk/{number}", 0.0), state=State.READY), launch, number)


def applied(members: list[Member], what: str, at: int, value: object, now_s: float) -> None:
    if what == "comes":
        taken = {one.place for one in members}
        free = next(place for place in range(at, at + len(taken) + 1) if place not in taken)
        insort(members, of(free), key=lambda one: one.place)
    if not members:
        return
    one = members[at % len(members)]
    match what:
        case "state" | "missed":
            one.replica = replace(one.replica, **{what: value})
        case "in_flight" | "suspect" | "concurrency":
            setattr(one, what, value)
        case "circuit":
            assert isinstance(value, Circuit)
            one.breaker = Breaker(value, retry_at_s=now_s + 2.0, trials=at)
        case "leaves":
            members.remove(one)


@given(changes=changes, tried=st.sets(st.integers(0, 5)))
def test_a_roster_stands_as_all_replicas_do_after_any_changes(
    changes: Sequence[tuple[str, int, object]], tried: set[int]
) -> None:
    members = [of(i) for i in range(4)]
    roster, now_s = Roster(members), NOW_S

    for what, at, value in changes:
        now_s += value if what == "later" and isinstance(value, float) else 0.0
        applied(members, what, at, value, now_s)

        all_ = [m.candidate(now_s) for m in members]
        ready = [m for m in members if m.replica.state is State.READY]
        trusted = [m for m in ready if not m.doubted(now_s)] or ready
        assert list(roster.open((), now_s)) == eligible(all_)
        assert list(roster.open(tried, now_s)) == eligible(all_, tried=tried)
        assert roster.room(now_s) == sum(m.room() for m in trusted)
        assert roster.ready(now_s) == len(ready)


def test_a_replica_that_left_changes_nothing_any_more() -> None:
    members = [of(0), of(1)]
    roster = Roster(members)
    gone = members[1]
    roster.room(NOW_S)

    members.remove(gone)
    roster.room(NOW_S)
    gone.in_flight = 3

    assert roster.room(NOW_S) == 3
    assert len(roster.open((), NOW_S)) == 1


def test_a_model_sees_a_request_come_and_go() -> None:
    launch = of(0).launch
    model = Model("talk", launch.spec, ENGINES["fake"], launch, Need("talk", 1, 1, 0, 0))
    one = model.at(0)
    one.replica = replace(one.replica, state=State.READY)

    one.in_flight += 3
    full = model.choose(), model.room_beyond(0)
    one.in_flight -= 1

    assert full == (None, False)
    assert (model.choose(), model.room_beyond(0), model.room_beyond(1)) == (0, True, False)
