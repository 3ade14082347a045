"""Record accounting of a job on a cluster: its counters, read over REST, running or ended."""

import time
from collections.abc import Iterator

import msgspec

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.flink_rest import ENDED, FlinkJob, FlinkRest
from sage_flink.platform.job_failures import newest_failure
from sage_flink.platform.record_accounting import (
    STEPS,
    Balance,
    CounterSnapshot,
    balance,
    decode_steps,
)

#: The accumulator in which the native counters operator publishes its snapshot.
ACCUMULATOR = "sage.account"
POLL_S = 0.5
#: How old a configuration may be: Flink's REST server caches it for 3 s, the state not at all.
CONFIG_AGE_MAX_S = 3.5


def job_balance(rest: FlinkRest, job: FlinkJob, *, wait_s: float = 0.0) -> Balance:
    """The job's balance at its last checkpoint, or at the end of a job that has ended.

    Polls for up to ``wait_s`` seconds until the job is balanced or has ended.

    Raises:
        ConfigError: the job was submitted without record counters.
        StackError: the job has no counters, because its tasks start or restart, or because it
            failed or ended before its first checkpoint; the message has the reason of a failure.
    """
    found = None
    for last in _tries(wait_s):
        state = rest.job(job.id).state
        ended = state in ENDED
        steps = _steps(rest, job.id, state)
        # Between two attempts a job has neither parameters nor accumulators.
        if steps is None and {state, rest.job(job.id).state} <= {"RUNNING", *ENDED}:
            raise ConfigError(
                f"job {job.name!r} has no record counters; submit it with `sage jobs submit` or "
                "sage.flow.submit"
            )
        snapshot = rest.accumulators(job.id).get(ACCUMULATOR)
        if steps and snapshot:
            found = balance(
                decode_steps(steps), msgspec.json.decode(snapshot, type=CounterSnapshot)
            )
        if last or ended or (snapshot and found and found.is_balanced):
            break
    if found is None:
        raise StackError(_why_uncounted(rest, rest.job(job.id)))
    return found


def _why_uncounted(rest: FlinkRest, job: FlinkJob) -> str:
    failure = newest_failure(rest.exceptions(job.id))
    if job.state not in ENDED:
        why = f", the last time because {failure}" if failure else ""
        return (
            f"job {job.name!r} has no record counters yet, because its tasks start or restart{why}"
            f"; try again with a longer --wait, and see `sage jobs show {job.name}`"
        )
    why = f": {failure}" if failure and job.state == "FAILED" else ""
    return (
        f"job {job.name!r} is {job.state} and took no checkpoint, so it has no record counters and "
        f"its output was not committed{why}; see `sage jobs show {job.name}`"
    )


def _steps(rest: FlinkRest, job_id: str, state: str) -> str | None:
    """The counted steps of a job, as submitted; just after a restart only once the cache is new."""
    deadline = time.monotonic() + CONFIG_AGE_MAX_S
    while (steps := rest.parameters(job_id).get(STEPS)) is None:
        if state != "RUNNING" or time.monotonic() > deadline:
            break
        time.sleep(POLL_S)
    return steps


def _tries(wait_s: float) -> Iterator[bool]:
    """Yields at each try whether it is the last; ends after about ``wait_s`` seconds."""
    deadline = time.monotonic() + wait_s
    while (now := time.monotonic()) < deadline:
        yield False
        time.sleep(min(POLL_S, max(0.0, deadline - now)))
    yield True
