"""Long calls in flight: checkpoints do not wait for them; savepoint and rescale preserve them."""

import time
from dataclasses import replace

import pytest

import sage_flink as sage
from benchmark_sage.recovery import build
from benchmark_sage.recovery.cluster import until
from benchmark_sage.recovery.drill import CHECKPOINT_S
from benchmark_sage.workload import percentile
from sage_flink.platform.savepoints import stop_with_savepoint

OPTIONS = sage.flow.FlinkOptions(checkpoint_interval_s=CHECKPOINT_S)
#: Fewer calls in flight than the call's capacity: at capacity it delays barriers by design.
RATE, CAPACITY = 4.0, 512
LONG_S, LONGEST_S = 10.0, 60.0


@pytest.fixture
def slow(cluster):
    """``slow(seconds)``: sets the time of a generation, and returns the options of the run."""

    def slow(seconds):
        cluster.control("mock-chat", latency=f"constant:{seconds}s")
        return limits(seconds)

    yield slow
    cluster.control("mock-chat", latency="lognormal:30ms:0.5")


def limits(long_s):
    return {
        "ids": int(RATE * max(40, long_s * 2)),
        "rate": RATE,
        "capacity": CAPACITY,
        "timeout_s": long_s * 4,
        "wait_s": long_s * 6 + 120,
        "partitions": 2,
        "starts_warm": False,
    }


@pytest.mark.full
def test_checkpoints_do_not_wait_for_long_calls(run, slow, full):
    """Counts only checkpoints started during calls; a job's first one waits for its workers."""
    long_s = LONGEST_S if full else LONG_S

    def fault(running):
        began_ms, took_ms, slow = time.time() * 1000, {}, {}

        def inspect():
            for one in running.rest.checkpoints(running.job_id)["history"]:
                if one["status"] == "COMPLETED" and one["trigger_timestamp"] >= began_ms:
                    took_ms[one["id"]] = one["end_to_end_duration"]
                    if one["end_to_end_duration"] > 1000 and one["id"] not in slow:
                        slow[one["id"]] = running.rest.checkpoint_of(running.job_id, one["id"])
            return len(running.fed) >= len(running.texts)

        until(inspect, 300, "calls in flight", every_s=1.0)
        p99_ms = percentile(list(took_ms.values()), 0.99)
        running.notes |= {"checkpoints": len(took_ms), "checkpoint_ms_p99": p99_ms}
        running.notes |= {"slow_checkpoints": slow} if slow else {}

    outcome = run(fault, name="long_calls_checkpoint", **slow(long_s))

    assert outcome.is_balanced, outcome
    assert outcome.notes["checkpoints"] >= long_s / 2
    assert outcome.notes["checkpoint_ms_p99"] <= 1000, outcome.notes["slow_checkpoints"]


@pytest.mark.full
def test_rescales_and_savepoints_preserve_long_calls(run, slow):
    """The job is rescaled while it runs, then resumed from savepoints at other parallelisms."""

    def fault(running):
        for parallelism in (2, 1):
            running.rest.rescale(running.job_id, parallelism)
            time.sleep(LONG_S / 2)
        for parallelism in (2, 1):
            path = stop_with_savepoint(running.rest, running.rest.job(running.job_id))
            again(running, replace(OPTIONS, savepoint=path, parallelism=parallelism))
            time.sleep(LONG_S / 2)

    outcome = run(fault, name="long_calls_rescale", **slow(LONG_S))

    assert outcome.is_balanced, outcome


def again(running, options):
    """Submit the job once more and wait until it runs."""
    running.job_id = sage.flow.submit(build(running.work), name=running.work.name, options=options)
    until(lambda: running.rest.all_tasks_running(running.job_id), 120, "the job's tasks run")
