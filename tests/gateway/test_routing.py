"""The routing policies: which replica gets the next request."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.config.pool_spec import ModelSpec
from sage_gateway.replicas.lifecycle import ReplicaState
from sage_gateway.requests.request import Request
from sage_gateway.routing import (
    POLICIES,
    Candidate,
    Router,
    RoutingHints,
    eligible,
    power_of_two,
    rendezvous,
)
from sage_gateway.routing.policy import NO_HINTS

KEYS = [b"key %d" % i for i in range(2000)]


def ready(index: int, in_flight: int, degraded: bool = False) -> Candidate:
    return Candidate(index, ReplicaState.READY, in_flight, degraded, has_room=in_flight < 8)


def router(name: str = "least_loaded") -> Router:
    return Router(ModelSpec(engine="fake", kind="chat", routing=name))


def choose(candidates: Sequence[Candidate], *, tried: Sequence[int] = ()) -> int | None:
    return router().choose(candidates, NO_HINTS, tried=tried)


replicas = st.lists(
    st.tuples(
        st.sampled_from([ReplicaState.READY, *ReplicaState]),
        st.integers(0, 9),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
).map(lambda rows: [Candidate(i, *row) for i, row in enumerate(rows)])
busy = st.lists(st.integers(0, 50), min_size=1, max_size=20).map(
    lambda loads: [ready(i, load) for i, load in enumerate(loads)]
)


def test_the_ready_replica_with_the_fewest_requests_is_chosen() -> None:
    starting = Candidate(2, ReplicaState.STARTING, 0)

    assert choose([ready(0, 3), ready(1, 2), starting]) == 1


def test_a_degraded_replica_is_the_last_choice() -> None:
    assert choose([ready(0, 0, degraded=True), ready(1, 7)]) == 1
    assert choose([ready(0, 0, degraded=True)]) == 0


def test_a_retry_uses_another_replica_if_there_is_one() -> None:
    assert choose([ready(0, 0), ready(1, 5, degraded=True)], tried=[0]) == 1
    assert choose([ready(0, 0)], tried=[0]) == 0


def test_a_retry_uses_the_same_replica_only_if_no_other_has_a_free_slot() -> None:
    assert choose([ready(0, 0), ready(1, 8)], tried=[0]) == 0
    assert choose([ready(0, 0, degraded=True), ready(1, 8)], tried=[0]) is None


def test_without_a_free_slot_no_replica_is_chosen() -> None:
    assert choose([ready(0, 8), ready(1, 8)]) is None
    assert choose([]) is None
    assert choose([ready(0, 8), ready(1, 0, degraded=True)]) is None


@pytest.mark.parametrize("name", POLICIES)
@given(candidates=replicas, key=st.binary(max_size=8), tried=st.sets(st.integers(0, 11)))
def test_no_policy_chooses_a_replica_that_is_not_ready_or_full_or_of_a_lower_tier(
    name: str, candidates: list[Candidate], key: bytes, tried: set[int]
) -> None:
    hints = RoutingHints(key, (key, b"and more"))
    by_name = router(name)
    best = {c.slot_index for c in eligible(candidates, tried=tried)}

    for _ in range(3):
        index = by_name.choose(candidates, hints, tried=tried)

        open_ = {c.slot_index for c in candidates if c.state is ReplicaState.READY and c.has_room}
        assert (index is None) == (not best)
        assert index is None or (index in best and best <= open_)


def test_round_robin_takes_one_after_the_other_and_skips_full_replicas() -> None:
    by_turns = router("round_robin")
    candidates = [ready(0, 5), ready(1, 0), ready(2, 8), ready(3, 1)]

    turns = [by_turns.choose(candidates, NO_HINTS) for _ in range(6)]

    assert turns == [0, 1, 3, 0, 1, 3]


@given(candidates=busy, seed=st.integers(0, 2**64 - 1))
def test_power_of_two_never_chooses_the_busier_of_its_two_candidates(
    candidates: list[Candidate], seed: int
) -> None:
    drawn = power_of_two.draw_two(len(candidates), seed)

    index = power_of_two.choose(candidates, NO_HINTS, seed)

    assert index in drawn
    assert candidates[index].in_flight == min(candidates[at].in_flight for at in drawn)
    assert len(candidates) == 1 or drawn[0] != drawn[1]


def test_power_of_two_draws_every_replica_about_equally_often() -> None:
    seed, counts = 7, [0] * 5
    for _ in range(5000):
        for at in power_of_two.draw_two(5, seed):
            counts[at] += 1
        seed = power_of_two.learn(seed, NO_HINTS, 0)

    assert all(1800 < count < 2200 for count in counts)


def placement(candidates: Sequence[Candidate]) -> dict[bytes, int]:
    return {key: rendezvous.choose(candidates, RoutingHints(key), None) for key in KEYS}


@pytest.mark.parametrize("lost", range(5))
def test_a_lost_replicas_keys_move_and_no_others(lost: int) -> None:
    candidates = [ready(i, 0) for i in range(5)]

    before = placement(candidates)
    after = placement([c for c in candidates if c.slot_index != lost])

    assert {k for k in KEYS if before[k] != after[k]} == {k for k in KEYS if before[k] == lost}
    assert {after[k] for k in KEYS if before[k] == lost} == {0, 1, 2, 3, 4} - {lost}


def test_a_new_replica_takes_its_share_of_keys_and_moves_no_others() -> None:
    before = placement([ready(i, 0) for i in range(4)])
    after = placement([ready(i, 0) for i in range(5)])

    moved = {k for k in KEYS if before[k] != after[k]}
    assert {after[k] for k in moved} == {4}
    assert 300 < len(moved) < 500


@pytest.mark.parametrize(
    ("name", "header"), [("session", b"x-session-id"), ("key_group", b"x-key-group")]
)
def test_a_key_is_read_from_its_header_and_without_one_the_least_loaded_is_chosen(
    name: str, header: bytes
) -> None:
    by_key = router(name)
    candidates = [ready(0, 3), ready(1, 1), ready(2, 2)]

    named = by_key.hints(Request(headers={b"accept": b"*/*", header: b"17"}))
    nameless = by_key.hints(Request(headers={b"accept": b"*/*"}))

    assert named == RoutingHints(b"17")
    assert by_key.choose(candidates, nameless) == 1


def test_a_session_moves_while_its_replica_is_full_and_returns() -> None:
    by_session = router("session")
    free = [ready(0, 0), ready(1, 0), ready(2, 0)]
    own = by_session.choose(free, RoutingHints(b"s"))
    full = [ready(c.slot_index, 8 if c.slot_index == own else 0) for c in free]

    assert by_session.choose(full, RoutingHints(b"s")) not in (own, None)
    assert by_session.choose(free, RoutingHints(b"s")) == own


@pytest.mark.parametrize("name", POLICIES)
def test_a_decision_among_a_hundred_replicas_takes_no_time(name: str) -> None:
    by_name = router(name)
    hints = RoutingHints(b"some key", tuple(b"link %d" % i for i in range(40)))
    rows = [(i, ReplicaState.READY, i % 7) for i in range(100)]
    took_s = []

    for _ in range(50):
        began = time.perf_counter()
        by_name.choose([Candidate(*row) for row in rows], hints)
        took_s.append(time.perf_counter() - began)

    assert min(took_s) < 0.001  # 0.05 ms on an idle machine
