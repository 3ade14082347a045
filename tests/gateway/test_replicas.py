"""The lifecycle of a replica, as pure functions."""

import pytest

from sage_gateway.config.pool_spec import HealthSpec
from sage_gateway.replicas.lifecycle import (
    LIVE,
    ProbeResult,
    ProcessExited,
    ProcessStarted,
    ReplacementRequested,
    Replica,
    ReplicaEvent,
    ReplicaState,
    StartFailed,
    StopRequested,
    advance,
    backoff_s,
    new_replica,
)

LIMITS = HealthSpec(
    missed_max=3, start_timeout_s=10, stable_s=30, backoff_first_s=1, backoff_max_s=5
)


def replica_after(*events: tuple[float, ReplicaEvent]) -> Replica:
    replica = new_replica("m/0", 0.0)
    for now_s, event in events:
        replica = advance(replica, event, now_s, LIMITS)
    return replica


def test_a_replica_is_ready_once_its_health_path_answers() -> None:
    assert replica_after((1, ProbeResult(False))).state is ReplicaState.STARTING
    assert (
        replica_after((1, ProbeResult(False)), (2, ProbeResult(True))).state is ReplicaState.READY
    )


def test_a_replica_that_never_answers_fails_after_its_start_timeout() -> None:
    late = replica_after((9, ProbeResult(False)), (10, ProbeResult(False)))

    assert late.state is ReplicaState.FAILED
    assert "10 s" in late.reason


def test_a_good_check_resets_the_missed_checks() -> None:
    replica = replica_after(
        (1, ProbeResult(True)),
        (2, ProbeResult(False)),
        (3, ProbeResult(False)),
        (4, ProbeResult(True)),
    )

    assert (replica.state, replica.missed) == (ReplicaState.READY, 0)


def test_a_hung_replica_fails_after_the_last_check_allowed() -> None:
    replica = replica_after((1, ProbeResult(True)), *((t, ProbeResult(False)) for t in (2, 3, 4)))

    assert replica.state is ReplicaState.FAILED
    assert replica.retry_at_s == 5


def test_a_replica_without_a_process_has_failed_with_a_reason() -> None:
    replica = replica_after((1, StartFailed("no memory")))

    assert (replica.state, replica.reason) == (ReplicaState.FAILED, "cannot start: no memory")
    assert (
        replica_after((1, StartFailed("no memory")), (2, ProcessStarted())).state
        is ReplicaState.STARTING
    )


def test_the_reason_of_an_exit_holds_what_is_known_of_its_cause() -> None:
    assert replica_after((1, ProcessExited(2))).reason == "exited with 2"
    assert replica_after((1, ProcessExited(2, "no file"))).reason == "exited with 2: no file"


def test_each_failure_in_a_row_waits_longer_up_to_a_limit() -> None:
    assert [backoff_s(n, LIMITS) for n in range(5)] == [1, 2, 4, 5, 5]
    assert backoff_s(10_000, LIMITS) == 5

    replica = replica_after((0, ProcessExited(1)), (1, ProcessStarted()), (1, ProcessExited(1)))

    assert (replica.restarts, replica.retry_at_s) == (2, 3)


def test_the_back_off_of_a_stable_replica_is_reset() -> None:
    shaky = replica_after(
        (0, ProcessExited(1)),
        (1, ProcessStarted()),
        (2, ProbeResult(True)),
        (20, ProbeResult(True)),
    )
    stable = advance(shaky, ProbeResult(True), 32, LIMITS)

    assert (shaky.restarts, stable.restarts) == (1, 0)


@pytest.mark.parametrize("before", [(), ((1.0, ProbeResult(True)),)])
def test_a_stop_drains_and_the_following_exit_is_not_a_failure(
    before: tuple[tuple[float, ReplicaEvent], ...],
) -> None:
    draining = replica_after(*before, (2, StopRequested()))

    assert draining.state is ReplicaState.DRAINING
    assert advance(draining, ProbeResult(True), 3, LIMITS).state is ReplicaState.DRAINING
    assert advance(draining, ProcessExited(0), 3, LIMITS).state is ReplicaState.STOPPED


def test_a_stopped_replica_stays_stopped() -> None:
    stopped = replica_after((0, ProcessExited(1)), (1, StopRequested()))

    for event in (ProcessStarted(), ProbeResult(True), ProcessExited(0), StopRequested()):
        assert advance(stopped, event, 9, LIMITS) == stopped


#: The state after each event of each state; an event that is not listed keeps the state.
TURNS = {
    (ReplicaState.STARTING, ProbeResult(True)): ReplicaState.READY,
    (ReplicaState.STARTING, ProcessExited(1)): ReplicaState.FAILED,
    (ReplicaState.STARTING, StartFailed("x")): ReplicaState.FAILED,
    (ReplicaState.STARTING, StopRequested()): ReplicaState.DRAINING,
    (ReplicaState.READY, ProcessExited(1)): ReplicaState.FAILED,
    (ReplicaState.READY, StopRequested()): ReplicaState.DRAINING,
    (ReplicaState.FAILED, ProcessStarted()): ReplicaState.STARTING,
    (ReplicaState.FAILED, StopRequested()): ReplicaState.STOPPED,
    (ReplicaState.DRAINING, ProcessExited(1)): ReplicaState.STOPPED,
}
EVENTS: list[ReplicaEvent] = [
    ProcessStarted(),
    StartFailed("x"),
    ProbeResult(True),
    ProbeResult(False),
    ProcessExited(1),
    StopRequested(),
    ReplacementRequested(),
]


@pytest.mark.parametrize("state", ReplicaState)
@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_every_event_in_every_state_follows_the_table(
    state: ReplicaState, event: ReplicaEvent
) -> None:
    before = Replica("m/0", state, since_s=0.0)

    after = advance(before, event, 1.0, LIMITS)

    assert after.state is TURNS.get((state, event), state)
    assert after.leaving == (event == ReplacementRequested() and state in LIVE)
    assert (after.since_s == 1.0) == (after.state is not state)
    if (state, event) not in TURNS and not after.leaving and not after.missed:
        assert after == before
