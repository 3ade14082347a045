"""What ``sage jobs list`` and ``show`` say of a job that fails."""

import pytest

from sage_flink.cli.job_health import JobHealth
from sage_flink.platform.doctor.jobs import is_of_interest
from sage_flink.platform.flink_rest import FlinkJob
from sage_flink.platform.job_failures import (
    JobFailure,
    checkpoint_failure,
    newest_failure,
    root_cause,
)

PYTHON = """java.lang.RuntimeException: Failed to close remote bundle
\tat org.apache.flink.A.b(A.java:1)
Caused by: java.util.concurrent.ExecutionException: java.lang.RuntimeException: Error received \
from SDK harness for instruction 3: Traceback (most recent call last):
  File "/x/stage.py", line 3, in f
    raise ValueError("no such word")
ValueError: no such word

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/x/y.py", line 9, in g
sage_flink.common.errors.PipelineError: step 'split': no such word

\tat org.apache.flink.C.d(C.java:2)
"""


@pytest.mark.parametrize(
    ("stacktrace", "reason"),
    [
        ("java.io.IOException: no disk\n\tat A.b(A.java:1)", "java.io.IOException: no disk"),
        ("a.B: x\n\tat A.b\nCaused by: c.D: inner\n\tat E.f\n\t... 3 more", "c.D: inner"),
        (PYTHON, "sage_flink.common.errors.PipelineError: step 'split': no such word"),
        ("", "unknown"),
    ],
)
def test_the_reason_is_the_innermost_error(stacktrace: str, reason: str) -> None:
    assert root_cause(stacktrace) == reason


def entry(at_ms: int, task: str | None = "decode, split (1/2)#3") -> dict[str, object]:
    return {"timestamp": at_ms, "taskName": task, "stacktrace": f"a.B: at {at_ms}"}


def test_the_newest_failure_names_its_step_without_subtask_and_attempt() -> None:
    assert newest_failure([entry(2), entry(3), entry(1)]) == JobFailure(
        3, "decode, split", "a.B: at 3", 3
    )
    assert newest_failure([entry(1, None)]) == JobFailure(1, "", "a.B: at 1", 1)
    assert newest_failure([]) is None


def job(state: str, duration_ms: int = 60_000) -> FlinkJob:
    return FlinkJob("id", "mine", state, 1_000_000, duration_ms)


def test_a_job_that_failed_lately_is_listed() -> None:
    ended_s = 1060.0

    assert is_of_interest(job("FAILED"), ended_s + 3000)
    assert not is_of_interest(job("FAILED"), ended_s + 4000)
    assert not is_of_interest(job("FINISHED"), ended_s)
    assert is_of_interest(job("RESTARTING"), ended_s + 10**6)


def test_a_failing_job_says_why_and_what_to_do() -> None:
    failure = JobFailure(1_060_000, "split", "ValueError: x", 3)
    loop = JobHealth(job("RESTARTING"), failure, "", {})
    failed = JobHealth(job("FAILED"), failure, "", {"completed": 4, "failed": 1})

    assert list(loop.warnings(1070.0)) == [
        "restarted 3 times, the last time 10 s ago in step split: ValueError: x; "
        "see `sage jobs show mine`"
    ]
    assert list(loop.warnings(10_000.0)) == []
    assert (loop.restarts, failed.restarts) == (3, 2)
    shown = dict(failed.lines(1070.0, "http://flink"))
    assert shown["last failure"] == "the last time 10 s ago in step split: ValueError: x"
    assert shown["checkpoints"] == "4 completed, 1 failed"
    assert shown["next"].startswith("mend the cause, then submit it again with --from-savepoint")
    assert shown["web page"] == "http://flink/#/job/completed/id"


def test_a_healthy_job_has_no_warnings() -> None:
    assert list(JobHealth(job("RUNNING"), None, "", {}).warnings(0.0)) == []


@pytest.mark.parametrize(
    ("latest", "reason"),
    [
        (None, ""),
        ({"completed": {"id": 3}}, ""),
        ({"failed": {"id": 2, "failure_message": "x"}, "completed": {"id": 3}}, ""),
        ({"failed": {"id": 4, "failure_message": "no disk"}, "completed": {"id": 3}}, "no disk"),
        ({"failed": {"id": 4}}, "a checkpoint failed"),
    ],
)
def test_the_newest_checkpoint_counts(latest: object, reason: str) -> None:
    assert checkpoint_failure({"latest": latest}) == reason
