"""The life of a replica, without a replica."""

import pytest

from sage_gateway.config.pool_spec import HealthSpec
from sage_gateway.replicas.lifecycle import (
    LIVE,
    Event,
    Exited,
    LeaveAsked,
    NotStarted,
    Probed,
    Replica,
    Started,
    State,
    StopAsked,
    advance,
    backoff_s,
    born,
)

LIMITS = HealthSpec(
    missed_max=3, start_timeout_s=10, stable_s=30, backoff_first_s=1, backoff_max_s=5
)


def lived(*events: tuple[float, Event]) -> Replica:
    replica = born("m/0", 0.0)
    for now_s, event in events:
        replica = advance(replica, event, now_s, LIMITS)
    return replica


def test_a_replica_is_ready_once_its_health_path_answers() -> None:
    assert lived((1, Probed(False))).state is State.STARTING
    assert lived((1, Probed(False)), (2, Probed(True))).state is State.READY


def test_a_replica_that_never_answers_has_failed_when_its_time_to_start_is_over() -> None:
    late = lived((9, Probed(False)), (10, Probed(False)))

    assert late.state is State.FAILED
    assert "10 s" in late.reason


def test_a_few_missed_checks_are_forgiven_and_forgotten() -> None:
    replica = lived((1, Probed(True)), (2, Probed(False)), (3, Probed(False)), (4, Probed(True)))

    assert (replica.state, replica.missed) == (State.READY, 0)


def test_a_hung_replica_fails_after_the_last_check_allowed() -> None:
    replica = lived((1, Probed(True)), *((t, Probed(False)) for t in (2, 3, 4)))

    assert replica.state is State.FAILED
    assert replica.retry_at_s == 5


def test_a_replica_without_a_process_has_failed_and_says_why() -> None:
    replica = lived((1, NotStarted("no memory")))

    assert (replica.state, replica.reason) == (State.FAILED, "cannot start: no memory")
    assert lived((1, NotStarted("no memory")), (2, Started())).state is State.STARTING


def test_each_failure_in_a_row_waits_longer_up_to_a_limit() -> None:
    assert [backoff_s(n, LIMITS) for n in range(5)] == [1, 2, 4, 5, 5]
    assert backoff_s(10_000, LIMITS) == 5

    replica = lived((0, Exited(1)), (1, Started()), (1, Exited(1)))

    assert (replica.restarts, replica.retry_at_s) == (2, 3)


def test_a_replica_that_was_stable_starts_its_back_off_anew() -> None:
    shaky = lived((0, Exited(1)), (1, Started()), (2, Probed(True)), (20, Probed(True)))
    stable = advance(shaky, Probed(True), 32, LIMITS)

    assert (shaky.restarts, stable.restarts) == (1, 0)


@pytest.mark.parametrize("before", [(), ((1.0, Probed(True)),)])
def test_a_stop_drains_and_the_exit_that_follows_is_no_failure(
    before: tuple[tuple[float, Event], ...],
) -> None:
    draining = lived(*before, (2, StopAsked()))

    assert draining.state is State.DRAINING
    assert advance(draining, Probed(True), 3, LIMITS).state is State.DRAINING
    assert advance(draining, Exited(0), 3, LIMITS).state is State.STOPPED


def test_a_stopped_replica_stays_stopped() -> None:
    stopped = lived((0, Exited(1)), (1, StopAsked()))

    for event in (Started(), Probed(True), Exited(0), StopAsked()):
        assert advance(stopped, event, 9, LIMITS) == stopped


#: The state after each event of each state; what is not here changes nothing.
TURNS = {
    (State.STARTING, Probed(True)): State.READY,
    (State.STARTING, Exited(1)): State.FAILED,
    (State.STARTING, NotStarted("x")): State.FAILED,
    (State.STARTING, StopAsked()): State.DRAINING,
    (State.READY, Exited(1)): State.FAILED,
    (State.READY, StopAsked()): State.DRAINING,
    (State.FAILED, Started()): State.STARTING,
    (State.FAILED, StopAsked()): State.STOPPED,
    (State.DRAINING, Exited(1)): State.STOPPED,
}
EVENTS: list[Event] = [
    Started(),
    NotStarted("x"),
    Probed(True),
    Probed(False),
    Exited(1),
    StopAsked(),
    LeaveAsked(),
]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_every_event_in_every_state_does_what_the_table_says(state: State, event: Event) -> None:
    before = Replica("m/0", state, since_s=0.0)

    after = advance(before, event, 1.0, LIMITS)

    assert after.state is TURNS.get((state, event), state)
    assert after.leaving == (event == LeaveAsked() and state in LIVE)
    assert (after.since_s == 1.0) == (after.state is not state)
    if (state, event) not in TURNS and not after.leaving and not after.missed:
        assert after == before
