"""The counters of a model, the pages of Flink's REST API, and the decision log."""

import doctest
import math
from dataclasses import replace
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_flink.platform.record_accounting import STEPS, CountedStep, encode_steps
from sage_flink.tsdb.time_series_store import flaw
from sage_gateway.autoscaling import Inputs, ScalingState, decide, flink_jobs
from sage_gateway.autoscaling.decision_log import DECISIONS_MAX, DecisionLog, point
from sage_gateway.autoscaling.flink_jobs import Vertex, calls_of, operator, slope, vertices
from sage_gateway.autoscaling.window import WINDOW_S, LoadWindow, ModelStatus
from sage_gateway.config.pool_spec import ScalingSpec
from sage_gateway.models import load
from sage_gateway.models.load import JOBS_MAX, DurationHistogram, Load, quantile_ms
from sage_gateway.replay import figures


@pytest.mark.parametrize("module", [load, flink_jobs, figures])
def test_the_examples_hold(module: ModuleType) -> None:
    assert doctest.testmod(module).failed == 0


ONE = ModelStatus(replicas=1, ready=1, starting=0, in_flight=0, limit=4)


@given(st.lists(st.floats(0.001, 1000), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_right_within_an_eighth(seconds: list[float], share: float) -> None:
    spread = DurationHistogram()
    for one in seconds:
        spread.add(one)
    exact_ms = 1000 * sorted(seconds)[math.ceil(share * len(seconds) - 1e-9) - 1]

    found = quantile_ms(spread.counts, share)

    assert found is not None
    assert exact_ms * 0.87 <= found <= exact_ms * 1.13


def test_rates_and_waits_are_those_of_the_window() -> None:
    did, window = Load(active_s=0.0), LoadWindow()
    did.waits.add(5.0)  # before
    window.read(did, ONE, 100.0, ())
    for _ in range(20):
        did.record_request(104.0, "")
        did.waits.add(0.2)
    for _ in range(10):
        did.record_response({"in": 30, "out": 10}, 104.5)
        did.record_stream(0.5, 0.9, 10)

    found = window.read(did, ONE, 105.0, ())

    assert (found.arrival_rate, found.served_rate) == (4.0, 2.0)
    assert (found.prompt_tokens_rate, found.completion_tokens_rate) == (60.0, 20.0)
    assert found.queue_wait_ms_p99 == pytest.approx(200, rel=0.13)
    assert found.ttft_ms_p99 == pytest.approx(500, rel=0.13)
    assert found.tpot_ms_p99 == pytest.approx(100, rel=0.13)
    assert found.idle_s == 0.5


def test_readings_older_than_the_window_are_dropped() -> None:
    did, window = Load(active_s=0.0), LoadWindow()
    window.read(did, ONE, 0.0, ())
    did.waits.add(9.0)
    window.read(did, ONE, 1.0, ())
    for second in range(2, 2 + int(WINDOW_S)):
        found = window.read(did, ONE, float(second), ())

    assert found.queue_wait_ms_p99 == 0.0


def test_the_window_is_cleared_when_the_number_of_replicas_changes() -> None:
    did, window = Load(active_s=0.0), LoadWindow()
    window.read(did, ONE, 0.0, ())
    did.waits.add(9.0)
    two = ModelStatus(replicas=2, ready=2, starting=0, in_flight=3, limit=8)

    found = window.read(did, two, 1.0, ())

    assert (found.queue_wait_ms_p99, found.arrival_rate, found.in_flight) == (0.0, 0.0, 3)


def test_the_time_with_queued_requests_is_counted() -> None:
    did, window = Load(active_s=0.0), LoadWindow()
    waiting = replace(ONE, queue_length=2)
    for at_s, standing in enumerate([ONE, waiting, waiting, ONE, waiting]):
        found = window.read(did, standing, float(at_s), ())

    assert found.waited_s == 3.0


def test_the_number_of_remembered_jobs_is_bounded() -> None:
    did = Load()
    for number in range(JOBS_MAX + 10):
        did.record_request(1.0, f"job {number}")
    did.record_request(2.0, "job 3")

    assert len(did.jobs) == JOBS_MAX
    assert did.jobs["job 3"] == 2.0


PAGE = {
    "vertices": [
        {"id": "a", "name": "Source: documents -> split"},
        {"id": "b", "name": "embed"},
        {"id": "c", "name": "vectors: Writer"},
    ],
    "plan": {
        "nodes": [
            {"id": "c", "inputs": [{"id": "b", "num": 0}]},
            {"id": "b", "inputs": [{"id": "a", "num": 0}]},
            {"id": "a"},
        ]
    },
}


def test_a_job_s_tasks_are_read_with_their_order_and_their_calls() -> None:
    steps = [CountedStep("documents", "read", ()), CountedStep("embed", "call", ("documents",))]

    found = vertices(PAGE, calls_of({STEPS: encode_steps(steps)}))

    assert [(v.id, v.inputs, v.calls) for v in found] == [
        ("a", (), False),
        ("b", ("a",), True),
        ("c", ("b",), False),
    ]


def test_a_job_without_known_steps_has_no_calls() -> None:
    assert calls_of({}) == frozenset()


def test_an_operator_is_busy_by_its_share_of_a_second() -> None:
    vertex = Vertex("b", "embed", ("a",), True)
    metrics = {"busyTimeMsPerSecond": 980.0, "backPressuredTimeMsPerSecond": 20.0}

    found = operator(vertex, metrics, {"a": "read", "b": "embed"})

    assert (found.busy, found.backpressured, found.inputs, found.calls) == (
        0.98,
        0.02,
        ("read",),
        True,
    )


def test_one_reading_has_no_slope() -> None:
    assert slope([(1.0, 5.0)]) == 0.0


SPEC = ScalingSpec(min=0, max=4)
STEADY = decide(SPEC, Inputs(replicas=1, ready=1, limit=4, in_flight=1), ScalingState(), 0.0)
ADDED = decide(SPEC, Inputs(replicas=0, queue_length=1), ScalingState(), 0.0)


def test_the_decision_log_is_newest_first_and_folds_repeated_holds() -> None:
    journal = DecisionLog()
    new = [journal.add(*one) for one in [("a", ADDED, 1.0), ("a", STEADY, 2.0), ("b", STEADY, 2.5)]]
    again = journal.add("a", STEADY, 3.0)

    assert (new, again) == ([True, True, True], False)
    assert [(e["model"], e["cause"], e["times"]) for e in journal.newest(None, 9)] == [
        ("b", "steady", 1),
        ("a", "steady", 2),
        ("a", "demand", 1),
    ]
    assert [(e["since"], e["at"]) for e in journal.newest("a", 1)] == [(2.0, 3.0)]


def test_the_decision_log_is_bounded() -> None:
    journal = DecisionLog()
    for second in range(3 * DECISIONS_MAX):
        journal.add("a", ADDED, float(second))

    assert len(journal.newest(None, 10 * DECISIONS_MAX)) == DECISIONS_MAX


@pytest.mark.parametrize("decision", [STEADY, ADDED])
def test_a_decision_is_a_point_that_a_store_can_hold(decision: object) -> None:
    found = point("org/a:b", decision, 1.5)  # type: ignore[arg-type]

    assert flaw(found) == ""
    assert found.tags.keys() == {"model", "action", "cause"}
    assert found.timestamp_ns == 1_500_000_000
