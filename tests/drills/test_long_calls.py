"""Long calls in flight: checkpoints pass them by; savepoint, resume and rescale take them along."""

import time
from dataclasses import replace

import pytest

import sage_flink as sage
from benchmark_sage.recovery import build
from benchmark_sage.recovery.cluster import until
from benchmark_sage.recovery.drill import CHECKPOINT_S
from sage_flink.platform.savepoints import stop_with_savepoint

OPTIONS = sage.flow.FlinkOptions(checkpoint_interval_s=CHECKPOINT_S)
#: Fewer calls in flight than the call's capacity: a full one holds barriers back by design.
RATE, CAPACITY = 4.0, 512


@pytest.fixture
def long_s(full, cluster):
    """Every generation takes this long, embeddings do not: 60 s in the full form."""
    seconds = 60.0 if full else 10.0
    cluster.control("mock-chat", latency=f"constant:{seconds}s")
    yield seconds
    cluster.control("mock-chat", latency="lognormal:30ms:0.5")


def limits(long_s):
    return {
        "ids": int(RATE * long_s * 4),
        "rate": RATE,
        "capacity": CAPACITY,
        "timeout_s": long_s * 4,
        "wait_s": long_s * 6 + 120,
        "partitions": 2,
    }


def test_checkpoints_do_not_wait_for_long_calls(run, long_s):
    """Those that begin while calls are in flight; the first of a job waits for its workers."""

    def fault(running):
        began_ms, took_ms = time.time() * 1000, {}

        def looked():
            for one in running.rest.checkpoints(running.job_id)["history"]:
                if one["status"] == "COMPLETED" and one["trigger_timestamp"] >= began_ms:
                    took_ms[one["id"]] = one["end_to_end_duration"]
            return len(running.fed) >= RATE * long_s * 3

        until(looked, 300, "calls in flight", every_s=1.0)
        running.notes |= {"checkpoints": len(took_ms), "checkpoint_ms_max": max(took_ms.values())}

    outcome = run(fault, name="long_calls_checkpoint", **limits(long_s))

    assert outcome.closes, outcome
    assert outcome.notes["checkpoints"] >= long_s / 2
    assert outcome.notes["checkpoint_ms_max"] <= 1000


def test_a_savepoint_takes_long_calls_along(run, long_s):
    def fault(running):
        path = stop_with_savepoint(running.rest, running.rest.job(running.job_id))
        again(running, replace(OPTIONS, savepoint=path))

    outcome = run(fault, name="long_calls_savepoint", **limits(long_s))

    assert outcome.closes, outcome


def test_rescaling_takes_long_calls_along(run, long_s):
    def fault(running):
        for parallelism in (2, 1):
            running.rest.rescale(running.job_id, parallelism)
            time.sleep(long_s / 2)

    outcome = run(fault, name="long_calls_rescale", **limits(long_s))

    assert outcome.closes, outcome


def test_a_savepoint_is_resumed_at_another_parallelism(run, long_s):
    def fault(running):
        for parallelism in (2, 1):
            path = stop_with_savepoint(running.rest, running.rest.job(running.job_id))
            again(running, replace(OPTIONS, savepoint=path, parallelism=parallelism))
            time.sleep(long_s / 2)

    outcome = run(fault, name="savepoint_rescale", **limits(long_s))

    assert outcome.closes, outcome


def again(running, options):
    """Submit the job once more and wait until it runs."""
    running.job_id = sage.flow.submit(build(running.work), name=running.work.name, options=options)
    until(lambda: running.rest.all_tasks_running(running.job_id), 120, "the job's tasks run")
