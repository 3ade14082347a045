"""All that a decision rests on, as one frozen value; it is logged with the decision."""

from dataclasses import dataclass, fields

from sage_gateway.autoscaling.streams import Job, bottleneck


@dataclass(frozen=True, slots=True)
class Inputs:
    """One model, as it is and as it was over the last seconds. Rates are per second.

    ``replicas``: how many are wanted now; ``ready`` and ``starting`` of them. ``in_flight``: at the
    replicas now (``in_flight_peak``: at most), of ``limit`` that the ready ones take. Waits are of
    all but the background class, of which ``background`` wait; ``oldest``: of who waits still;
    ``waited_s``: for so many of the last seconds somebody did.
    ``refused``: were turned away for want of room. ``idle_s``: since anybody asked. None: no stream
    was timed.
    """

    replicas: int
    ready: int = 0
    starting: int = 0
    queue_length: int = 0
    background: int = 0
    queue_wait_ms_p50: float = 0.0
    queue_wait_ms_p99: float = 0.0
    queue_oldest_ms: float = 0.0
    waited_s: float = 0.0
    in_flight: int = 0
    in_flight_peak: int = 0
    limit: int = 0
    arrival_rate: float = 0.0
    served_rate: float = 0.0
    refused: int = 0
    prompt_tokens_rate: float = 0.0
    completion_tokens_rate: float = 0.0
    ttft_ms_p99: float | None = None
    tpot_ms_p99: float | None = None
    idle_s: float = 0.0
    jobs: tuple[Job, ...] = ()

    @property
    def wait_ms(self) -> float:
        """The longest wait that counts, of those let go and those who still wait."""
        return max(self.queue_wait_ms_p99, self.queue_oldest_ms)

    @property
    def peak(self) -> int:
        """The most in flight at a time."""
        return max(self.in_flight, self.in_flight_peak)

    @property
    def lag(self) -> int:
        """Records that wait for the jobs that call this model."""
        return sum(job.lag for job in self.jobs)

    def flat(self) -> dict[str, float | int | str]:
        """Every input under its name, jobs in words: the fields of a point."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "jobs"}
        told = {name: value for name, value in plain.items() if value is not None}
        rate = sum(job.lag_rate for job in self.jobs)
        return told | {"lag": self.lag, "lag_rate": rate, "jobs": "; ".join(map(_told, self.jobs))}


def _told(job: Job) -> str:
    one = bottleneck(job)
    slowest = f", bottleneck {one.name} busy {one.busy:.2f}" if one else ""
    return f"{job.name}: lag {job.lag}, {job.lag_rate:+.1f}/s{slowest}"
