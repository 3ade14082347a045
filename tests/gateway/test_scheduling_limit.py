"""The measured concurrency limit, on simulated engines; and the service rate of a queue."""

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.config.pool_spec import CONCURRENCY_MAX
from sage_gateway.scheduling.concurrency_limit import (
    START,
    ConcurrencyLimit,
    record_latency,
    record_loss,
)
from sage_gateway.scheduling.service_rate import (
    RETRY_MAX_S,
    ServiceRate,
    per_second,
    record,
    resume,
    retry_after_s,
)

pytestmark = pytest.mark.slow

Latency = Callable[[int], float]


def engine(knee: int, base_s: float = 0.1) -> Latency:
    """Flat until ``knee`` requests are in flight, then in proportion."""
    return lambda in_flight: base_s * max(1.0, in_flight / knee)


def run(
    limit: ConcurrencyLimit, latency: Latency, answers: int, noise: float = 0.0
) -> ConcurrencyLimit:
    """The limit after ``answers`` responses of an engine with all slots in use."""
    dice = random.Random(1)
    for _ in range(answers):
        seconds = latency(limit.concurrency) * dice.lognormvariate(0, noise)
        limit = record_latency(limit, seconds, limit.concurrency)
    return limit


def values(limit: ConcurrencyLimit, latency: Latency, answers: int) -> list[float]:
    """The limits over time, without those of probes."""
    found = []
    for _ in range(answers):
        limit = run(limit, latency, 1)
        if not limit.probes:
            found.append(limit.value)
    return found


@pytest.mark.parametrize("knee", [4, 16, 64])
def test_the_limit_settles_at_twice_the_knee(knee: int) -> None:
    settled = values(run(ConcurrencyLimit(), engine(knee), 20_000), engine(knee), 5_000)

    assert 1.2 * knee < min(settled)
    assert max(settled) < 3 * knee


@pytest.mark.parametrize("noise", [0.2, 0.6])
def test_answers_of_many_lengths_do_not_mislead_it(noise: float) -> None:
    limit = run(ConcurrencyLimit(), engine(16), 40_000, noise)

    assert 12 < max(limit.value, limit.before) < 80


def test_an_engine_without_a_knee_gets_the_maximum() -> None:
    assert max(values(ConcurrencyLimit(), engine(10_000), 40_000)) == CONCURRENCY_MAX


def test_a_slower_engine_gets_a_lower_limit_and_longer_prompts_restore_it() -> None:
    before = run(ConcurrencyLimit(), engine(32), 20_000)
    throttled = run(before, engine(4), 5_000)
    longer = run(before, engine(32, base_s=1.0), 20_000)

    assert max(throttled.value, throttled.before) < 16
    assert max(longer.value, longer.before) > 40


def test_an_unused_limit_stays() -> None:
    limit = ConcurrencyLimit()
    for _ in range(1000):
        limit = record_latency(limit, 0.1, 2)

    assert limit.value == START


def test_a_lost_engine_halves_the_limit_but_one_request_is_always_allowed() -> None:
    assert record_loss(ConcurrencyLimit()).concurrency == START / 2

    limit = ConcurrencyLimit()
    for _ in range(20):
        limit = record_loss(limit)

    assert limit.concurrency == 1


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 500)), max_size=400))
def test_whatever_is_measured_the_limit_stays_in_its_bounds(trace: list[tuple[float, int]]) -> None:
    limit = ConcurrencyLimit()
    for seconds, in_flight in trace:
        limit = record_loss(limit) if seconds > 99 else record_latency(limit, seconds, in_flight)

        assert 1 <= limit.concurrency <= CONCURRENCY_MAX
        assert math.isfinite(limit.value)


def dispatch(
    per_s: float, seconds: float, measured: ServiceRate | None = None, from_s: float = 0.0
) -> ServiceRate:
    """The measured rate after ``seconds`` of ``per_s`` with a queue that is never empty."""
    measured = resume(measured or ServiceRate(), from_s)
    for n in range(1, int(per_s * seconds) + 1):
        measured = record(measured, from_s + n / per_s)
    return measured


@pytest.mark.parametrize("per_s", [0.5, 3.0, 200.0])
def test_the_service_rate_is_that_of_dispatched_requests(per_s: float) -> None:
    assert per_second(dispatch(per_s, 60.0), 60.0) == pytest.approx(per_s, rel=0.15)


def test_the_rate_is_known_after_a_few_and_follows_within_seconds() -> None:
    assert per_second(dispatch(10.0, 0.5), 0.5) == pytest.approx(10.0, rel=0.05)

    faster = dispatch(100.0, 20.0, dispatch(10.0, 60.0), from_s=60.0)

    assert per_second(faster, 80.0) > 80


def test_an_hour_with_an_empty_queue_does_not_change_the_rate() -> None:
    busy = dispatch(50.0, 30.0)

    assert per_second(resume(busy, 3630.0), 3630.0) == pytest.approx(per_second(busy, 30.0))


def test_retry_after_grows_while_an_engine_stalls() -> None:
    busy = dispatch(10.0, 30.0)

    waits = [retry_after_s(busy, 100, 30.0 + stalled_s) for stalled_s in (0, 10, 30, 1000)]

    assert waits == sorted(waits)
    assert waits[0] in (10, 11)
    assert waits[-1] == RETRY_MAX_S


def test_retry_after_is_the_queue_over_the_rate_in_whole_seconds() -> None:
    busy = dispatch(20.0, 60.0)

    assert retry_after_s(busy, 0, 60.0) == 1
    assert retry_after_s(busy, 399, 60.0) in (20, 21)
    assert retry_after_s(ServiceRate(), 1_000_000, 60.0) == 1


@given(st.lists(st.floats(0, 50), max_size=30), st.integers(0, 10**6), st.floats(0, 1e5))
def test_retry_after_is_always_between_one_second_and_the_maximum(
    gaps: list[float], queue: int, idle_s: float
) -> None:
    measured, now = ServiceRate(), 0.0
    for gap in gaps:
        now += gap
        measured = record(measured, now)

    found = retry_after_s(measured, queue, now + idle_s)

    assert isinstance(found, int)
    assert 1 <= found <= RETRY_MAX_S
