"""Jobs of the cluster: those that restart again and again, and those that failed recently."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sage_flink.common.errors import SageError
from sage_flink.platform.doctor.check import Check, Level
from sage_flink.platform.flink_rest import ENDED, FlinkJob, FlinkRest
from sage_flink.platform.job_failures import FAILED_S, RESTARTED_S, JobFailure, newest_failure

TIMEOUT_S = 3.0
#: Failures in the last RESTARTED_S seconds from which on a job counts as restarting without end.
RESTARTS_MAX = 3


@dataclass(frozen=True, slots=True)
class JobFacts:
    """One job, its newest failure, and how many failures it had in the last RESTARTED_S seconds."""

    job: FlinkJob
    failure: JobFailure | None
    failures_lately: int


def read_jobs(flink_url: str, now_s: float) -> list[JobFacts]:
    """The jobs that run, and those that failed in the last hour; none without a cluster."""
    found = []
    try:
        with FlinkRest(flink_url, timeout_s=TIMEOUT_S) as rest:
            for job in rest.jobs():
                if not is_of_interest(job, now_s):
                    continue
                history = rest.exceptions(job.id)
                times = [now_s - int(entry["timestamp"]) / 1000 for entry in history]
                lately = sum(seconds < RESTARTED_S for seconds in times)
                found.append(JobFacts(job, newest_failure(history), lately))
    except (SageError, KeyError, TypeError, ValueError):
        return found  # the connection to Flink has its own check
    return found


def is_of_interest(job: FlinkJob, now_s: float) -> bool:
    """Whether a job runs, or failed recently."""
    ended_s = (job.started_ms + job.duration_ms) / 1000
    return job.state not in ENDED or (job.state == "FAILED" and now_s - ended_s < FAILED_S)


def check_jobs(jobs: Sequence[JobFacts]) -> Iterator[Check]:
    """The checks of the jobs."""
    names = [facts.job.name for facts in jobs]
    for facts in jobs:
        job, step = facts.job, f"see `sage jobs show {facts.job.name}`"
        if job.state == "FAILED" and names.index(job.name) == jobs.index(facts):
            yield Check("jobs", job.name, "fault", f"failed: {facts.failure or 'unknown'}", step)
        elif job.state != "FAILED" and facts.failures_lately:
            level: Level = "fault" if facts.failures_lately >= RESTARTS_MAX else "warning"
            minutes = RESTARTED_S / 60
            found = f"restarted {facts.failures_lately} times in {minutes:.0f} minutes"
            yield Check("jobs", job.name, level, f"{found}: {facts.failure}", step)
        elif job.state != "FAILED":
            yield Check("jobs", job.name, "ok", f"{job.state} for {job.duration_ms / 1000:.0f} s")
