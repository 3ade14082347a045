"""The Flink jobs that call a model: their lag and their bottleneck. Pure.

An operator is the bottleneck when it is busy all the time and its upstream is back-pressured. A
call with all of its capacity in flight counts as busy, because Flink sees its task wait inside a
record; so a call as the bottleneck means: the pool, or the call's own capacity.

Source: Flink's busyTimeMsPerSecond and backPressuredTimeMsPerSecond, docs/ops/monitoring.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Measured on a call at its capacity: busy 0.83 to 1.0, its upstream back-pressured 0.92 to 1.0.
BUSY = 0.8
BACKPRESSURED = 0.5
#: Records a second; less is noise.
RISING = 1.0


@dataclass(frozen=True, slots=True)
class Operator:
    """One task of a job. Times are shares of a second of its busiest subtask; ``inputs``: upstream.

    ``calls``: whether it contains a step that calls the pool.
    """

    name: str
    busy: float
    backpressured: float
    inputs: tuple[str, ...] = ()
    calls: bool = False


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A running job. ``lag``: unread records in its topics, which grow by ``lag_rate`` per second.

    Both are 0 if its sources do not report them.
    """

    name: str
    lag: int = 0
    lag_rate: float = 0.0
    operators: tuple[Operator, ...] = ()

    @property
    def rising(self) -> bool:
        """Whether the job cannot keep up."""
        return self.lag > 0 and self.lag_rate >= RISING


def bottleneck(job: JobStatus) -> Operator | None:
    """The busiest operator that back-pressures its upstream; the last of equals."""
    found = [one for one in job.operators if one.busy >= BUSY and _backpressures(job, one)]
    return max(reversed(found), key=lambda one: one.busy, default=None)


def waits_for_pool(job: JobStatus) -> bool:
    """Whether its bottleneck is a call."""
    found = bottleneck(job)
    return found is not None and found.calls


def elsewhere(jobs: Sequence[JobStatus]) -> Iterator[str]:
    """A sentence for each job with a bottleneck, given that the pool has room."""
    for job in jobs:
        one = bottleneck(job)
        if one is None:
            continue
        before = max((_operator(job, name).backpressured for name in one.inputs), default=0.0)
        upstream = f", its upstream back-pressured {before:.2f}" if one.inputs else ""
        where = f"operator {one.name} of job {job.name} is (busy {one.busy:.2f}{upstream})"
        yield f"{where}: raise its capacity, because the pool has room" if one.calls else where


def _backpressures(job: JobStatus, one: Operator) -> bool:
    return not one.inputs or any(
        _operator(job, name).backpressured >= BACKPRESSURED for name in one.inputs
    )


def _operator(job: JobStatus, name: str) -> Operator:
    return next(one for one in job.operators if one.name == name)
