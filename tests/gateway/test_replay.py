"""Replay of recorded requests: simulated time, the gateway's policies, and the figures."""

import asyncio
import math
import time
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from replay_traces import HEAD, row, scaling_header

from sage_flink.common import ConfigError
from sage_gateway.config.pool_spec import ScalingSpec, Scheduling
from sage_gateway.replay import Trace, TraceRow, simulate
from sage_gateway.replay.__main__ import Overrides, replay
from sage_gateway.replay.figures import figures, jain
from sage_gateway.replay.simulate import ReplayResult, ReplaySetup, RequestOutcome, pace_s
from sage_gateway.replay.virtual import VirtualLoop
from sage_gateway.scheduling import POLICIES, QueueLimits

pytestmark = pytest.mark.slow


def setup(policy: str = "fifo", slots: int = 1, queue_max: int = 1000) -> ReplaySetup:
    return ReplaySetup(policy, 1, slots, QueueLimits(queue_max, 1e6))


def outcomes_of(rows: list[TraceRow], setup: ReplaySetup) -> list[RequestOutcome]:
    return simulate.run_trace(rows, setup).outcomes


def test_an_hour_of_simulated_waiting_takes_no_time() -> None:
    async def hour() -> float:
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(hour()) == pytest.approx(3600)
    assert time.monotonic() - began < 5


def test_waiting_without_a_timer_is_an_error_and_does_not_hang() -> None:
    async def forever() -> None:
        await asyncio.get_running_loop().create_future()

    with (
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
        pytest.raises(RuntimeError, match="no timer is set"),
    ):
        runner.run(forever())


def test_the_waits_equal_those_of_a_single_server() -> None:
    found = outcomes_of([row(0.0), row(0.5), row(0.6, 3.0), row(9.0)], setup())

    assert [one.waited_s for one in found] == pytest.approx([0.0, 0.5, 1.4, 0.0])


def test_two_slots_behave_as_two_servers() -> None:
    found = outcomes_of([row(0.0), row(0.0), row(0.0)], setup(slots=2))

    assert [one.waited_s for one in found] == pytest.approx([0.0, 0.0, 1.0])


def test_requests_beyond_the_queue_limit_are_refused() -> None:
    found = outcomes_of([row(0.0) for _ in range(4)], setup(queue_max=2))

    assert [one.status for one in found] == [200, 200, 200, 429]


def test_slo_serves_the_least_slack_first_and_refuses_overdue_requests() -> None:
    rows = [row(0.0, 5.0), row(0.1), row(0.2, deadline_s=6.5), row(0.3, deadline_s=2.0)]

    fifo, slo = (outcomes_of(rows, setup(policy)) for policy in ("fifo", "slo"))

    assert [one.in_time for one in fifo] == [True, True, False, False]
    assert [one.in_time for one in slo] == [True, True, True, False]
    assert slo[3].status == 504


def test_a_request_without_a_recorded_time_takes_the_usual_time_of_its_tokens() -> None:
    rows = [row(0.0, 2.0), row(5.0, None, status=429)]

    assert pace_s(rows) == pytest.approx(0.2)
    assert outcomes_of(rows, setup())[1].service_s == pytest.approx(2.0)


arrivals = st.lists(
    st.builds(
        lambda at_s, service_s, tenant, priority: row(
            at_s, service_s, tenant=tenant, priority=priority
        ),
        st.floats(0, 20),
        st.floats(0.01, 3),
        st.sampled_from("abc"),
        st.sampled_from(["interactive", "normal", "background"]),
    ),
    min_size=1,
    max_size=40,
).map(lambda rows: sorted(rows, key=lambda one: one.arrived_s))


@pytest.mark.parametrize("policy", sorted(POLICIES))
@settings(deadline=None, max_examples=25)
@given(rows=arrivals, slots=st.integers(1, 3))
def test_every_request_ends_once_and_no_server_is_idle_while_requests_are_queued(
    policy: str, rows: list[TraceRow], slots: int
) -> None:
    found = outcomes_of(rows, setup(policy, slots))

    assert [one.row for one in found] == rows
    assert all(one.status == 200 for one in found)
    busy = sorted((o.arrived_s + o.waited_s, o.service_s) for o in found)
    assert math.isclose(_last_end(rows, slots, busy), max(b + s for b, s in busy), rel_tol=1e-6)


def _last_end(rows: list[TraceRow], slots: int, order: list[tuple[float, float]]) -> float:
    """The end of the last request if the servers take them in this order without idling."""
    free = [0.0] * slots
    for begun_s, service_s in order:
        at = free.index(min(free))
        assert begun_s >= free[at] - 1e-6
        free[at] = begun_s + service_s
    return max(free)


def test_the_figures_count_the_outcomes() -> None:
    outcomes = [
        RequestOutcome(row(0, tenant="a", deadline_s=2.0), 0.0, 0.5, 1.0),
        RequestOutcome(row(0, tenant="b", deadline_s=2.0), 0.0, 1.5, 1.0),
        RequestOutcome(row(0, tenant="b"), 0.0, 4.0, 0.0, status=429),
    ]

    found = figures("talk", "fifo", ReplayResult(outcomes, [1]))

    assert (found.requests, found.refused, found.missed) == (3, 1, 1)
    assert found.goodput == pytest.approx(1 / 4)
    assert found.jain == pytest.approx(jain([1 / 1.5, (1 / 2.5 + 0) / 2]), abs=1e-3)
    assert [(c.priority, c.requests, c.wait_ms_p99) for c in found.classes] == [
        ("normal", 3, 1500.0)
    ]


def test_both_policies_are_replayed(tmp_path: Path) -> None:
    trace = Trace(HEAD, (row(0.0, 5.0), row(0.1), row(0.2, deadline_s=6.5)))

    found = list(replay(trace, "slo", Overrides(concurrency=1)))

    assert [one.policy for one in found] == ["fifo", "slo"]
    assert found[0].missed > found[1].missed


def bursts() -> tuple[TraceRow, ...]:
    """Ten minutes: a burst of 4 requests/s for the first, then one request every 20 s."""
    return tuple(row(at / 4) for at in range(240)) + tuple(row(60 + at) for at in range(0, 540, 20))


def test_scaling_is_replayed_with_the_decisions_of_the_pool() -> None:
    trace = Trace(scaling_header(), bursts())

    (fixed,), (moved,) = (
        list(replay(trace, "fifo", Overrides(scaling=on))) for on in (False, True)
    )

    assert (fixed.replicas, fixed.replicas_max) == (1.0, 1)
    assert moved.classes[0].wait_ms_p99 < fixed.classes[0].wait_ms_p99 / 4
    assert moved.replicas_max > 3
    assert moved.replicas < 3


def test_a_model_scaled_to_zero_starts_again_in_a_replay() -> None:
    rows = (row(0.0), row(600.0), row(1200.0))
    trace = Trace(scaling_header(min=0, idle_s=60), rows)

    [found] = replay(trace, "fifo", Overrides(scaling=True))

    assert found.refused == 0
    assert found.replicas < 0.3
    assert 4900 < found.classes[0].wait_ms_p99 < 6100


def test_scaling_must_have_been_recorded() -> None:
    with pytest.raises(ConfigError, match="model talk had no `scaling`"):
        list(replay(Trace(HEAD, (row(0.0),)), "fifo", Overrides(scaling=True)))


def test_an_unknown_policy_is_an_error_that_lists_them() -> None:
    known = ", ".join(sorted(get_args(Scheduling)))

    with pytest.raises(ConfigError, match=f"no policy 'best'; there are {known}$"):
        list(replay(Trace(HEAD, (row(0.0),)), "best"))


@pytest.mark.parametrize("seed", range(4))
def test_under_a_steady_load_the_replicas_settle(seed: int) -> None:
    random = Random(seed)
    at_s = accumulate(random.expovariate(10.0) for _ in range(6000))
    rows = tuple(row(at, random.expovariate(1.0)) for at in at_s)
    [model] = scaling_header(max=10, down_cooldown_s=60).models.values()
    scaling = ScalingSpec.model_validate(model.scaling)

    found = simulate.run_trace(rows, ReplaySetup("fifo", 1, 4, QueueLimits(10_000, 600), scaling))

    changes = [(at, after) for at, (b, after) in enumerate(pairwise(found.replicas)) if b != after]
    assert len(changes) <= 5
    assert all(at < 120 for at, _ in changes)
    assert 3 <= found.replicas[-1] <= 6
