"""The scaling decision, as properties: bounds, no flapping, more load never fewer replicas."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scaling_inputs import LONG_AGO, job

from sage_gateway.autoscaling import (
    Cause,
    Inputs,
    ScalingState,
    decide,
)
from sage_gateway.config.pool_spec import ScalingSpec

pytestmark = pytest.mark.slow

few = st.integers(0, 80)
rates = st.floats(0, 1e4)
millis = st.floats(0, 1e6)
jobs = st.lists(
    st.builds(job, st.sampled_from(["read", "map", "embed", "write"]), st.floats(-100, 100)),
    max_size=2,
).map(tuple)
some_inputs = st.builds(
    Inputs,
    replicas=st.integers(0, 8),
    ready=st.integers(0, 8),
    starting=st.integers(0, 2),
    queue_length=few,
    background=few,
    queue_wait_ms_p99=millis,
    queue_oldest_ms=millis,
    waited_s=st.floats(0, 10),
    in_flight=few,
    limit=few,
    arrival_rate=rates,
    served_rate=rates,
    refused=st.integers(0, 3),
    ttft_ms_p99=st.none() | millis,
    tpot_ms_p99=st.none() | millis,
    idle_s=st.floats(0, 1000),
    jobs=jobs,
)
specs = st.builds(
    lambda low, more, **rest: ScalingSpec(min=low, max=max(1, low + more), **rest),
    st.integers(0, 3),
    st.integers(0, 5),
    up_cooldown_s=st.floats(0, 50),
    down_cooldown_s=st.floats(0, 100),
    idle_s=st.floats(1, 300),
    target_ttft_ms=st.none() | st.floats(1, 1e4),
)


@given(specs, some_inputs, st.floats(0, 1e3))
def test_a_decision_is_never_outside_the_bounds(
    spec: ScalingSpec, inputs: Inputs, now_s: float
) -> None:
    found = decide(spec, inputs, ScalingState(), now_s)

    assert spec.min <= found.replicas <= spec.max
    assert found.words


@given(specs, st.lists(st.tuples(some_inputs, st.floats(0, 20)), max_size=30))
def test_decisions_do_not_flap(spec: ScalingSpec, ticks: list[tuple[Inputs, float]]) -> None:
    now_s, changed_s, replicas, state = 0.0, None, spec.min, ScalingState()
    for inputs, pause_s in ticks:
        now_s += pause_s
        found = decide(spec, replace(inputs, replicas=replicas), state, now_s)
        if found.action != "hold" and found.cause is not Cause.DEMAND:
            least_s = spec.up_cooldown_s if found.action == "add" else spec.down_cooldown_s
            assert changed_s is None or now_s - changed_s >= least_s
        changed_s = now_s if found.action != "hold" else changed_s
        replicas, state = found.replicas, found.state


@given(specs, some_inputs, st.floats(0, 1e6), st.floats(0, 200))
def test_longer_waits_never_mean_fewer_replicas(
    spec: ScalingSpec, inputs: Inputs, more_ms: float, since_s: float
) -> None:
    longer = replace(inputs, queue_wait_ms_p99=inputs.queue_wait_ms_p99 + more_ms)
    state = ScalingState(changed_s=0.0, calm_since_s=0.0)

    short, long = (decide(spec, i, state, since_s) for i in (inputs, longer))

    assert long.replicas >= short.replicas


@given(specs, some_inputs, few)
def test_more_queued_requests_never_mean_fewer_replicas(
    spec: ScalingSpec, inputs: Inputs, more: int
) -> None:
    more_wait = replace(inputs, queue_length=inputs.queue_length + more)

    few_, many = (decide(spec, i, LONG_AGO, 0.0) for i in (inputs, more_wait))

    assert many.replicas >= few_.replicas


@given(specs, some_inputs)
def test_no_replica_is_added_for_a_slow_step_while_the_pool_has_free_slots(
    spec: ScalingSpec, inputs: Inputs
) -> None:
    idle = replace(
        inputs, replicas=max(1, spec.min), ready=1, queue_length=0, queue_wait_ms_p99=0.0,
        queue_oldest_ms=0.0, in_flight=1, limit=4, refused=0, jobs=(job("map", 100.0),),
    )  # fmt: skip

    assert decide(spec, idle, LONG_AGO, 0.0).action != "add"
