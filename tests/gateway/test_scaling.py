"""The scaling decision, as a table, with its reasons and the bottleneck of a job."""

from dataclasses import replace
from typing import Any

import pytest
from scaling_inputs import LONG_AGO, job, operators

from sage_gateway.autoscaling import (
    Cause,
    Decision,
    Inputs,
    JobStatus,
    ScalingState,
    decide,
    reject,
)
from sage_gateway.autoscaling.streams import bottleneck
from sage_gateway.config.pool_spec import ScalingSpec

SPEC = ScalingSpec(
    min=0, max=4, target_queue_wait_ms=500, target_ttft_ms=800, target_tpot_ms=100, idle_s=60
)


CALM = Inputs(replicas=2, ready=2, in_flight=2, limit=8, arrival_rate=5, served_rate=5)
LONELY = replace(CALM, replicas=1, ready=1, limit=4)


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
