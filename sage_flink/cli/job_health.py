"""Health of a Flink job: restarts, the newest failure, checkpoints, and what to do about it."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from sage_flink.common import sage_home
from sage_flink.platform.flink_rest import ENDED, FlinkJob, FlinkRest
from sage_flink.platform.job_failures import (
    RESTARTED_S,
    JobFailure,
    checkpoint_failure,
    newest_failure,
)

#: With less free disk space than this, a failed checkpoint is blamed on the disk.
FREE_MIB_MIN = 64


@dataclass(frozen=True, slots=True)
class JobHealth:
    """What is known of a job. ``checkpoint_failure``: why the newest one failed, else empty."""

    job: FlinkJob
    failure: JobFailure | None
    checkpoint_failure: str
    checkpoints: dict[str, Any]

    @property
    def restarts(self) -> int:
        """How often the job was restarted; the failure that ended it is none."""
        ended = self.job.state == "FAILED"
        return max(0, self.failure.times - ended) if self.failure else 0

    def fields(self) -> dict[str, Any]:
        """All of it for JSON."""
        return {
            **msgspec.to_builtins(self.job),
            "restarts": self.restarts,
            "failure": self.failure._asdict() if self.failure else None,
            "checkpoints": self.checkpoints,
            "alarm": self.checkpoint_failure,
        }

    def warnings(self, now_s: float) -> Iterator[str]:
        """What needs somebody's attention, a sentence each."""
        failure = self.failure
        if failure is not None and (
            self.job.state == "FAILED" or now_s - failure.at_ms / 1000 < RESTARTED_S
        ):
            what = "it failed" if self.job.state == "FAILED" else f"restarted {self.restarts} times"
            yield f"{what}, {self._why(now_s)}; see `sage jobs show {self.job.name}`"
        if self.checkpoint_failure:
            yield (
                "checkpoints fail, so its exactly-once output stays invisible: "
                f"{self.checkpoint_failure}"
            )

    def lines(self, now_s: float, flink_url: str) -> Iterator[tuple[str, str]]:
        """Name and value of each fact."""
        job, counts = self.job, self.checkpoints
        yield "job", f"{job.name} ({job.id})"
        yield "state", f"{job.state} after {job.duration_ms / 1000:.0f} s"
        yield "restarts", str(self.restarts)
        if self.failure is not None:
            yield "last failure", self._why(now_s)
        yield "checkpoints", ", ".join(f"{counts.get(k, 0)} {k}" for k in ("completed", "failed"))
        if self.checkpoint_failure:
            yield "checkpoints fail", self.checkpoint_failure
        page = "completed" if job.state in ENDED else "running"
        yield "web page", f"{flink_url}/#/job/{page}/{job.id}"
        for number, step in enumerate(self._next()):
            yield "" if number else "next", step

    def _why(self, now_s: float) -> str:
        assert self.failure is not None
        seconds = max(0.0, now_s - self.failure.at_ms / 1000)
        step = f" in step {self.failure.step}" if self.failure.step else ""
        return f"the last time {seconds:.0f} s ago{step}: {self.failure.reason}"

    def _next(self) -> Iterator[str]:
        name = self.job.name
        if self.job.state == "FAILED":
            yield f"mend the cause, then submit it again with --from-savepoint latest --name {name}"
        elif self.failure is not None:
            yield "see the whole exception on the web page, and `sage logs taskmanager`"
        yield f"sage jobs account {name}; sage dlq list {name}"


def health_of(rest: FlinkRest, job: FlinkJob) -> JobHealth:
    """The health of a job now.

    Raises:
        StackError: the cluster does not answer.
    """
    checkpoints = rest.checkpoints(job.id)
    failure = newest_failure(rest.exceptions(job.id))
    return JobHealth(job, failure, _alarm(checkpoints), checkpoints.get("counts", {}))


def _alarm(checkpoints: Mapping[str, Any]) -> str:
    """Why the job's newest checkpoint failed, with a hint if the disk is full; else empty."""
    reason = checkpoint_failure(checkpoints)
    folder = sage_home() / "data" / "flink" / "checkpoints"
    if not reason or not folder.exists():
        return reason
    free_mib = shutil.disk_usage(folder).free / 2**20
    full = f" {folder} has {free_mib:.0f} MiB free: free disk space." * (free_mib < FREE_MIB_MIN)
    return f"{reason}{full} See `sage logs flink`"
