"""The scaling decision, as a table and as properties."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_gateway.autoscaling import (
    Cause,
    Decision,
    Inputs,
    JobStatus,
    Operator,
    ScalingState,
    decide,
    reject,
)
from sage_gateway.autoscaling.streams import bottleneck
from sage_gateway.config.pool_spec import ScalingSpec

SPEC = ScalingSpec(
    min=0, max=4, target_queue_wait_ms=500, target_ttft_ms=800, target_tpot_ms=100, idle_s=60
)
LONG_AGO = ScalingState(changed_s=-1e6, calm_since_s=-1e6)
CALM = Inputs(replicas=2, ready=2, in_flight=2, limit=8, arrival_rate=5, served_rate=5)
LONELY = replace(CALM, replicas=1, ready=1, limit=4)


def operators(slow: str, *, calls: bool = True) -> tuple[Operator, ...]:
    """read -> map -> embed -> write, of which ``slow`` is the bottleneck."""
    names = ["read", "map", "embed", "write"]
    at = names.index(slow)
    return tuple(
        Operator(
            name,
            busy=0.98 if name == slow else 0.1,
            backpressured=0.9 if i < at else 0.0,
            inputs=tuple(names[i - 1 : i] if i else ()),
            calls=calls and name == "embed",
        )
        for i, name in enumerate(names)
    )


def job(slow: str, rate: float = 40.0) -> JobStatus:
    return JobStatus("ingest", lag=9000, lag_rate=rate, operators=operators(slow))


def decision_on(inputs: Inputs, state: ScalingState = LONG_AGO, **spec: Any) -> Decision:
    return decide(SPEC.model_copy(update=spec), inputs, state, now_s=0.0)


def under(inputs: Inputs, **more: Any) -> Inputs:
    return replace(inputs, **more)


FULL = {"queue_length": 6, "in_flight": 8, "waited_s": 8.0}
TABLE: dict[str, tuple[Inputs, int, Cause]] = {
    "a wait over the target adds": (
        under(CALM, queue_wait_ms_p99=900, **FULL),
        3,
        Cause.QUEUE_WAIT,
    ),
    "the wait of a queued request adds too": (
        under(CALM, queue_oldest_ms=900, **FULL),
        3,
        Cause.QUEUE_WAIT,
    ),
    "a burst adds no replica": (
        under(CALM, queue_wait_ms_p99=900, queue_length=6, in_flight=8, waited_s=3.0),
        2,
        Cause.STEADY,
    ),
    "as many as the rates need": (
        under(CALM, queue_wait_ms_p99=900, arrival_rate=9, served_rate=5, **FULL),
        4,
        Cause.QUEUE_WAIT,
    ),
    "never more than twice as many": (
        under(CALM, queue_wait_ms_p99=900, served_rate=5e-324, **FULL),
        4,
        Cause.QUEUE_WAIT,
    ),
    "a rejected request adds": (under(CALM, refused=3, in_flight=8), 3, Cause.REFUSED),
    "a slow first token adds": (under(CALM, ttft_ms_p99=900, in_flight=8), 3, Cause.TTFT),
    "slow tokens add": (under(CALM, tpot_ms_p99=120.0, in_flight=8), 3, Cause.TPOT),
    "a slow request alone adds no replica": (
        under(LONELY, ttft_ms_p99=900, tpot_ms_p99=120.0, in_flight=1),
        1,
        Cause.STEADY,
    ),
    "never beyond the maximum": (
        under(CALM, replicas=4, ready=4, queue_wait_ms_p99=9e5, **FULL),
        4,
        Cause.AT_MAX,
    ),
    "no replica is added while others start": (
        under(CALM, starting=1, queue_wait_ms_p99=900, **FULL),
        2,
        Cause.STARTING,
    ),
    "a rising lag and a full pool add though waits are short": (
        under(CALM, queue_wait_ms_p99=90, jobs=(job("embed"),), **FULL),
        4,
        Cause.LAG,
    ),
    "a falling lag adds no replica": (
        under(CALM, queue_wait_ms_p99=90, jobs=(job("embed", rate=-5),), **FULL),
        2,
        Cause.STEADY,
    ),
    "a slow Python step adds no replica": (
        under(LONELY, jobs=(job("map"),)),
        1,
        Cause.NOT_THE_POOL,
    ),
    "a call at its own capacity adds no replica": (
        under(LONELY, jobs=(job("embed"),)),
        1,
        Cause.NOT_THE_POOL,
    ),
    "queued requests add, whatever the bottleneck of a job": (
        under(LONELY, queue_wait_ms_p99=900, queue_length=3, waited_s=9, jobs=(job("map"),)),
        2,
        Cause.QUEUE_WAIT,
    ),
    "background alone adds no replica": (
        under(LONELY, background=500, in_flight=4),
        1,
        Cause.STEADY,
    ),
    "a request to a model at zero adds one": (Inputs(replicas=0, queue_length=1), 1, Cause.DEMAND),
    "a batch request to a model at zero adds one": (
        Inputs(replicas=0, background=1),
        1,
        Cause.DEMAND,
    ),
    "a model at zero stays there without a request": (Inputs(replicas=0), 0, Cause.IDLE),
    "surplus is removed one by one": (CALM, 1, Cause.SURPLUS),
    "surplus is kept if the others would be full": (under(CALM, in_flight=4), 2, Cause.STEADY),
    "an idle model is scaled to zero": (under(LONELY, in_flight=0, idle_s=61), 0, Cause.IDLE),
    "with all of its replicas": (under(CALM, in_flight=0, idle_s=61), 0, Cause.IDLE),
    "an idle model stays while a job has a lag": (
        under(LONELY, in_flight=0, idle_s=61, jobs=(job("read", 0),)),
        1,
        Cause.LAG,
    ),
    "an idle model stays while a request is in flight": (
        under(LONELY, in_flight=1, idle_s=61),
        1,
        Cause.STEADY,
    ),
    "more replicas than the maximum are corrected": (
        under(CALM, replicas=7, ready=7),
        4,
        Cause.BOUNDS,
    ),
}


@pytest.mark.parametrize("row", TABLE.values(), ids=list(TABLE))
def test_the_decision_is(row: tuple[Inputs, int, Cause]) -> None:
    inputs, replicas, cause = row

    found = decision_on(inputs)

    assert (found.replicas, found.cause) == (replicas, cause)
    sign = (found.replicas > inputs.replicas) - (found.replicas < inputs.replicas)
    assert found.action == {1: "add", 0: "hold", -1: "remove"}[sign]
    assert found.inputs is inputs


def test_fewer_replicas_than_the_minimum_are_corrected() -> None:
    assert decision_on(Inputs(replicas=0), min=2).replicas == 2


def test_a_model_with_a_minimum_of_one_stays_at_one() -> None:
    assert decision_on(under(LONELY, in_flight=0, idle_s=1e6), min=1).replicas == 1


def test_the_reason_names_the_bottleneck_of_a_job() -> None:
    words = decision_on(under(LONELY, jobs=(job("map"),))).words

    assert words == (
        "the pool is not the bottleneck: "
        "operator map of job ingest is (busy 0.98, its upstream back-pressured 0.90)"
    )


def test_the_reason_names_a_call_at_its_capacity() -> None:
    words = decision_on(under(LONELY, jobs=(job("embed"),))).words

    assert words.endswith("raise its capacity, because the pool has room")


def test_the_reason_contains_the_figures() -> None:
    words = decision_on(under(CALM, queue_wait_ms_p99=1840.0, **FULL)).words

    assert words == (
        "queue wait 1,840 ms, target 500; 6 queued; 5.0 requests/s arrive, 5.0 are served"
    )


def test_a_dry_run_is_marked_and_decides_the_same() -> None:
    inputs = under(CALM, queue_wait_ms_p99=900, **FULL)

    assert decision_on(inputs, dry_run=True) == replace(decision_on(inputs), dry_run=True)


def test_a_rejection_by_the_pool_is_a_cause_and_starts_the_cool_down() -> None:
    found = reject(
        decision_on(under(CALM, queue_wait_ms_p99=900, **FULL)), "needs 9 GB, 2 are free"
    )

    assert (found.action, found.replicas, found.cause) == ("hold", 2, Cause.BUDGET)
    assert found.words == "add to 3 was refused: needs 9 GB, 2 are free"
    assert found.state.changed_s == 0.0


def test_surplus_must_last() -> None:
    first = decide(SPEC, CALM, ScalingState(), 100.0)
    busy = decide(SPEC, under(CALM, in_flight=8), first.state, 130.0)
    again = decide(SPEC, CALM, busy.state, 131.0)
    before = decide(SPEC, CALM, again.state, 131.0 + SPEC.down_cooldown_s - 0.1)
    after = decide(SPEC, CALM, before.state, 131.0 + SPEC.down_cooldown_s)

    assert [d.replicas for d in (first, busy, again, before, after)] == [2, 2, 2, 2, 1]


@pytest.mark.parametrize(("slow", "found"), [("read", "read"), ("map", "map"), ("write", "write")])
def test_the_bottleneck_is_the_busy_operator_behind_backpressured_ones(
    slow: str, found: str
) -> None:
    one = bottleneck(job(slow))

    assert one is not None
    assert one.name == found


def test_a_busy_operator_without_backpressure_is_not_a_bottleneck() -> None:
    calm = tuple(replace(one, backpressured=0.0) for one in operators("map"))

    assert bottleneck(JobStatus("ingest", operators=calm)) is None


def test_every_input_is_a_field_that_a_point_can_have() -> None:
    flat = under(CALM, ttft_ms_p99=12.0, jobs=(job("map"),)).flat()

    assert flat["lag"] == 9000
    assert flat["jobs"] == "ingest: lag 9000, +40.0/s, bottleneck map busy 0.98"
    assert "tpot_ms_p99" not in flat
    assert all(isinstance(value, int | float | str) for value in flat.values())


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
