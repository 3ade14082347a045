"""The circuit breaker of a replica, as pure functions."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.replicas.circuit_breaker import (
    PAUSE_FIRST_S,
    PAUSE_MAX_S,
    RUN_MAX,
    TRIALS,
    WINDOW,
    Breaker,
    Circuit,
    is_trusted,
    on_cancel,
    on_failure,
    on_send,
    on_success,
    reset,
)


def after_call(breaker: Breaker, good: bool, now_s: float = 0.0) -> Breaker:
    """One call from its sending to its end."""
    out = on_send(breaker, now_s)
    return on_success(out, out.epoch) if good else on_failure(out, out.epoch, now_s)


def after(marks: str, breaker: Breaker | None = None, now_s: float = 0.0) -> Breaker:
    """The breaker after calls one by one: ``.`` is answered, ``x`` is not."""
    found = breaker or Breaker()
    for mark in marks:
        found = after_call(found, mark == ".", now_s)
    return found


OPEN = after("x" * RUN_MAX)


def test_a_run_of_failures_opens_the_circuit() -> None:
    assert after("x" * (RUN_MAX - 1)).circuit is Circuit.CLOSED
    assert after("x" * (RUN_MAX - 1) + ".x").circuit is Circuit.CLOSED
    assert OPEN.circuit is Circuit.OPEN


def test_a_share_of_failures_opens_the_circuit_after_a_window_of_calls() -> None:
    assert after(".xx" * 3).circuit is Circuit.CLOSED
    assert after("." * WINDOW + ".xx" * 4).circuit is Circuit.CLOSED
    assert after("." * WINDOW + ".xx" * 5).circuit is Circuit.OPEN


def test_an_open_circuit_is_not_trusted_until_its_pause_is_over() -> None:
    assert not is_trusted(OPEN, PAUSE_FIRST_S - 0.01)
    assert is_trusted(OPEN, PAUSE_FIRST_S)
    assert on_send(OPEN, PAUSE_FIRST_S - 0.01) == OPEN


def test_a_half_open_circuit_closes_after_successful_trials() -> None:
    trying = OPEN
    for _ in range(TRIALS):
        assert is_trusted(trying, PAUSE_FIRST_S)
        trying = on_send(trying, PAUSE_FIRST_S)
    assert not is_trusted(trying, 1e9)

    once = on_success(trying, trying.epoch)
    assert once.circuit is Circuit.HALF_OPEN
    assert on_success(once, once.epoch).circuit is Circuit.CLOSED


def test_a_failed_trial_opens_the_circuit_for_twice_as_long_up_to_a_limit() -> None:
    pauses, breaker = [], OPEN
    for _ in range(8):
        now_s = breaker.retry_at_s
        breaker = after_call(breaker, False, now_s)
        pauses.append(breaker.retry_at_s - now_s)

    assert pauses == [2, 4, 8, 16, *[PAUSE_MAX_S] * 4]


def test_a_cancelled_trial_can_be_repeated() -> None:
    trying = OPEN
    for _ in range(TRIALS):
        trying = on_send(trying, PAUSE_FIRST_S)

    assert is_trusted(on_cancel(trying, trying.epoch), PAUSE_FIRST_S)


def test_the_outcome_of_a_call_of_an_older_epoch_is_ignored() -> None:
    early = Breaker()
    trying = on_send(OPEN, PAUSE_FIRST_S)

    for now in (OPEN, trying, reset(OPEN)):
        assert on_success(now, early.epoch) == now
        assert on_failure(now, early.epoch, 9.0) == now
        assert on_cancel(now, early.epoch) == now


def test_the_breaker_of_a_new_process_has_no_history() -> None:
    assert is_trusted(reset(OPEN), 0.0)
    assert after("x" * (RUN_MAX - 1), reset(OPEN)).circuit is Circuit.CLOSED


def test_a_success_after_successes_creates_no_new_breaker() -> None:
    settled = after("." * WINDOW)

    assert after_call(settled, True) is settled


Step = Callable[[Breaker, int, float], Breaker]
STEPS: list[Step] = [
    lambda breaker, _, now_s: on_send(breaker, now_s),
    lambda breaker, epoch, _: on_success(breaker, epoch),
    lambda breaker, epoch, now_s: on_failure(breaker, epoch, now_s),
]


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.floats(0, 20))))
def test_successful_calls_close_the_circuit_after_any_history(
    story: list[tuple[Step, int, float]],
) -> None:
    breaker, now_s = Breaker(), 0.0
    for step, older, pause_s in story:
        now_s += pause_s
        before = breaker
        breaker = step(breaker, breaker.epoch - older, now_s)

        assert breaker.epoch in (before.epoch, before.epoch + 1)
        assert breaker.passed <= TRIALS
        assert breaker.retry_at_s <= now_s + PAUSE_MAX_S
    if breaker.circuit is Circuit.HALF_OPEN:
        breaker = on_failure(breaker, breaker.epoch, now_s)

    well = after("." * TRIALS, breaker, now_s + PAUSE_MAX_S)

    assert well.circuit is Circuit.CLOSED
