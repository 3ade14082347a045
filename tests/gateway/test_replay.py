"""Replay of recorded requests: simulated time, the gateway's policies, and the figures."""

import asyncio
import json
import math
import time
from itertools import accumulate, pairwise
from pathlib import Path
from random import Random
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sage_flink import cli
from sage_flink.common import ConfigError
from sage_gateway.config.pool_spec import PoolSpec, ScalingSpec, Scheduling
from sage_gateway.replay import Recorder, Trace, TraceHeader, TraceRow, read, simulate
from sage_gateway.replay.__main__ import Overrides, replay
from sage_gateway.replay.figures import figures, jain
from sage_gateway.replay.simulate import ReplayResult, ReplaySetup, RequestOutcome, pace_s
from sage_gateway.replay.trace import header_of
from sage_gateway.replay.virtual import VirtualLoop
from sage_gateway.scheduling import POLICIES, QueueLimits, RequestHints

SPEC = PoolSpec.model_validate({"models": {"talk": {"engine": "fake", "kind": "chat"}}})
HEAD = header_of(SPEC)


def setup(policy: str = "fifo", slots: int = 1, queue_max: int = 1000) -> ReplaySetup:
    return ReplaySetup(policy, 1, slots, QueueLimits(queue_max, 1e6))


def outcomes_of(rows: list[TraceRow], setup: ReplaySetup) -> list[RequestOutcome]:
    return simulate.run_trace(rows, setup).outcomes


def row(at_s: float, service_s: float | None = 1.0, **more: Any) -> TraceRow:
    return TraceRow(arrived_s=1e9 + at_s, model="talk", tokens=10, service_s=service_s, **more)


def record_trace(
    path: Path, rows: list[tuple[RequestHints, int]], header: TraceHeader = HEAD, **more: Any
) -> Trace:
    recorder = Recorder(path, header, **more)
    recorder.open()
    for hints, status in rows:
        recording = recorder.start("talk", hints, 10)
        if recording is not None:
            if status == 200:
                recording.mark_dispatched()
            recording.finish(status, {"in": 3, "out": 2} if status == 200 else {}, 0.0)
    recorder.close()
    return read(path)


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


def test_a_trace_contains_what_a_replay_needs(tmp_path: Path) -> None:
    urgent = RequestHints("acme", 0, time.time() + 9)

    trace = record_trace(tmp_path / "t.jsonl", [(urgent, 200), (RequestHints(), 429)])

    first, second = trace.rows
    assert (first.tenant, first.priority, first.tokens, first.used) == (
        "acme",
        "interactive",
        10,
        5,
    )
    assert first.deadline_s == pytest.approx(9, abs=1)
    assert first.service_s is not None
    assert (second.status, second.service_s, second.deadline_s) == (429, None, None)
    assert trace.header.models["talk"].policy == "fifo"
    assert (tmp_path / "t.jsonl").stat().st_mode & 0o77 == 0


def test_a_sample_is_even(tmp_path: Path) -> None:
    header = TraceHeader(1, HEAD.models, sample=0.25)
    recorder = Recorder(tmp_path / "t.jsonl", header)

    recording = [recorder.start("talk", RequestHints(), 1) is not None for _ in range(12)]

    assert recording == [False, False, False, True] * 3


def test_a_full_trace_file_is_rotated(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    for _ in range(3):
        trace = record_trace(path, [(RequestHints(), 200)], bytes_max=10)

    assert len(trace.rows) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.jsonl", "t.jsonl.1"]


def test_both_policies_are_replayed(tmp_path: Path) -> None:
    trace = Trace(HEAD, (row(0.0, 5.0), row(0.1), row(0.2, deadline_s=6.5)))

    found = list(replay(trace, "slo", Overrides(concurrency=1)))

    assert [one.policy for one in found] == ["fifo", "slo"]
    assert found[0].missed > found[1].missed


def bursts() -> tuple[TraceRow, ...]:
    """Ten minutes: a burst of 4 requests/s for the first, then one request every 20 s."""
    return tuple(row(at / 4) for at in range(240)) + tuple(row(60 + at) for at in range(0, 540, 20))


def scaling_header(**scaling: Any) -> TraceHeader:
    model = {"engine": "fake", "kind": "chat", "concurrency": 1, "queue_timeout_s": 600}
    wanted = {"max": 6, "down_cooldown_s": 30, **scaling}
    spec = PoolSpec.model_validate({"models": {"talk": model | {"scaling": wanted}}})
    return header_of(spec)


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


def test_a_trace_contains_the_scaling(tmp_path: Path) -> None:
    trace = record_trace(tmp_path / "t.jsonl", [(RequestHints(), 200)], scaling_header(max=3))

    assert trace.header == scaling_header(max=3)
    assert [one.replicas_max for one in replay(trace, "fifo", Overrides(scaling=True))] == [1]


def test_scaling_must_have_been_recorded() -> None:
    with pytest.raises(ConfigError, match="model talk had no `scaling`"):
        list(replay(Trace(HEAD, (row(0.0),)), "fifo", Overrides(scaling=True)))


def test_an_unknown_policy_is_an_error_that_lists_them() -> None:
    known = ", ".join(sorted(get_args(Scheduling)))

    with pytest.raises(ConfigError, match=f"no policy 'best'; there are {known}$"):
        list(replay(Trace(HEAD, (row(0.0),)), "best"))


@pytest.mark.parametrize("text", ["", "{}\n", '{"sage_pool_trace": 9, "models": {}}\n', "x\n"])
def test_a_file_that_is_not_a_trace_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(text)

    with pytest.raises(ConfigError, match="trace"):
        read(path)


def test_an_incomplete_last_line_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    record_trace(path, [(RequestHints(), 200), (RequestHints(), 200)])
    path.write_bytes(path.read_bytes()[:-5])

    assert len(read(path).rows) == 1


def sage(*words: str) -> Any:
    return CliRunner().invoke(cli.app, ["pool", "replay", *words], env={"COLUMNS": "120"})


def test_the_command_shows_both_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    record_trace(path, [(RequestHints("a"), 200), (RequestHints("b", 0), 200)])

    table = sage(str(path), "--policy", "slo", "--concurrency", "1").output
    figures = json.loads(sage(str(path), "--policy", "priority", "--json").output)

    assert "fifo" in table
    assert "slo" in table
    assert "interactive" in table
    assert [(one["model"], one["policy"]) for one in figures] == [
        ("talk", "fifo"),
        ("talk", "priority"),
    ]


def test_the_command_reports_errors(tmp_path: Path) -> None:
    found = sage(str(tmp_path / "none.jsonl"), "--policy", "slo")

    assert found.exit_code != 0
    assert isinstance(found.exception, ConfigError)


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
