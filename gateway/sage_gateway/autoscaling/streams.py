"""What the jobs that call a model know of it: their lag, and which operator holds them up. Pure.

An operator is the bottleneck when it is busy all the time and those before it are held up. A call
whose requests in flight are as many as it may have counts as busy, for Flink sees its task wait
inside a record; so a call that is the bottleneck means: the pool, or the call's own capacity.

Source: Flink's busyTimeMsPerSecond and backPressuredTimeMsPerSecond, docs/ops/monitoring.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: Seen of a call at its capacity: 0.83 to 1.0, and 0.92 to 1.0 of the time its upstream held up.
BUSY = 0.8
HELD_UP = 0.5
#: Records a second; less is noise.
RISING = 1.0


@dataclass(frozen=True, slots=True)
class Operator:
    """One task of a job. Shares of a second, of its busiest subtask; ``inputs``: tasks before it.

    ``calls``: it holds a step that calls the pool.
    """

    name: str
    busy: float
    held_up: float
    inputs: tuple[str, ...] = ()
    calls: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """A running job. ``lag``: records that wait in its topics, which grow by ``lag_rate`` a second.

    Both are 0 where its sources do not tell.
    """

    name: str
    lag: int = 0
    lag_rate: float = 0.0
    operators: tuple[Operator, ...] = ()

    @property
    def rising(self) -> bool:
        """Whether it cannot keep up."""
        return self.lag > 0 and self.lag_rate >= RISING


def bottleneck(job: Job) -> Operator | None:
    """The busiest operator that holds up the others; the last of equals."""
    found = [one for one in job.operators if one.busy >= BUSY and _holds_up(job, one)]
    return max(reversed(found), key=lambda one: one.busy, default=None)


def waits_for_pool(job: Job) -> bool:
    """Whether its bottleneck is a call."""
    found = bottleneck(job)
    return found is not None and found.calls


def elsewhere(jobs: Sequence[Job]) -> Iterator[str]:
    """In words, each job whose bottleneck is not the pool, given that the pool has room."""
    for job in jobs:
        one = bottleneck(job)
        if one is None:
            continue
        before = max((_operator(job, name).held_up for name in one.inputs), default=0.0)
        held = f", its upstream back-pressured {before:.2f}" if one.inputs else ""
        where = f"operator {one.name} of job {job.name} is (busy {one.busy:.2f}{held})"
        yield f"{where}: raise its capacity, for the pool has room" if one.calls else where


def _holds_up(job: Job, one: Operator) -> bool:
    return not one.inputs or any(_operator(job, name).held_up >= HELD_UP for name in one.inputs)


def _operator(job: Job, name: str) -> Operator:
    return next(one for one in job.operators if one.name == name)
