"""Restarts of a job that its own code caused, on a machine that may stall for seconds."""

import re

from sage_flink.common import Settings
from sage_flink.platform.flink_rest import FlinkRest

#: In the exception of a restart where one of the two got no heartbeat for 8 s.
STALL = re.compile("eartbeat of (Task|Job)Manager .* timed out")


def own_restarts(job_id: str) -> int:
    """The job's restarts without those by a heartbeat timeout, which are printed."""
    with FlinkRest(Settings.load().flink_url) as rest:
        failures = rest.exceptions(job_id)
    own = [one for one in failures if not STALL.search(str(one.get("stacktrace")))]
    if stalls := len(failures) - len(own):
        print(f"job {job_id}: {stalls} restarts by a heartbeat timeout")
    return len(own)
