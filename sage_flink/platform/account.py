"""The account of a job as its cluster has it: read over REST, running or ended."""

import time
from collections.abc import Iterator

import msgspec

from sage_flink.common.errors import ConfigError, StackError
from sage_flink.platform.balance import STEPS, Balance, Books, balance, steps_of
from sage_flink.platform.flink_rest import ENDED, FlinkRest, Job

#: The accumulator that the native operator ``Account`` states.
ACCUMULATOR = "sage.account"
POLL_S = 0.5


def account(rest: FlinkRest, job: Job, *, wait_s: float = 0.0) -> Balance:
    """The job's balance at its last checkpoint; a job that has ended, at its end.

    Asked again for up to ``wait_s`` seconds until it closes or the job has ended.

    Raises:
        ConfigError: the job keeps no account.
        StackError: it has none yet; it starts, or starts again.
    """
    found = None
    for last in _tries(wait_s):
        state = rest.job(job.id).state
        ended = state in ENDED
        steps = rest.parameters(job.id).get(STEPS)
        # Between two attempts a job has neither parameters nor accumulators.
        if steps is None and state in {"RUNNING", *ENDED}:
            raise ConfigError(
                f"job {job.name!r} keeps no account; submit it with `sage jobs submit` or "
                "sage.flow.submit"
            )
        stated = rest.accumulators(job.id).get(ACCUMULATOR)
        if steps and stated:
            found = balance(steps_of(steps), msgspec.json.decode(stated, type=Books))
        if last or ended or (stated and found and found.closes):
            break
    if found is None:
        raise StackError(
            f"job {job.name!r} has no account yet: its tasks start, or start again; "
            "ask again with a longer --wait, and see `sage jobs list`"
        )
    return found


def _tries(wait_s: float) -> Iterator[bool]:
    """Whether this try is the last; ends after about ``wait_s`` seconds."""
    deadline = time.monotonic() + wait_s
    while (now := time.monotonic()) < deadline:
        yield False
        time.sleep(min(POLL_S, max(0.0, deadline - now)))
    yield True
