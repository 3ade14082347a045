"""The inputs of a scaling decision, as one frozen value; it is logged with the decision."""

from dataclasses import dataclass, fields

from sage_gateway.autoscaling.streams import JobStatus, bottleneck


@dataclass(frozen=True, slots=True)
class Inputs:
    """One model, now and over the last seconds. Rates are per second.

    ``replicas``: wanted now; ``ready`` and ``starting`` of them. ``in_flight``: requests at the
    replicas now (``in_flight_peak``: the most in the window), of the ``limit`` of the ready ones.
    Queue and waits exclude the background class, of which ``background`` requests are queued.
    ``queue_oldest_ms``: the longest wait of a queued request; ``waited_s``: for how many of the
    last seconds requests were queued. ``refused``: rejected for lack of room. ``idle_s``: since the
    last request or response. None: no stream was measured.
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
    jobs: tuple[JobStatus, ...] = ()

    @property
    def wait_ms(self) -> float:
        """The longest wait that counts, of dispatched and of queued requests."""
        return max(self.queue_wait_ms_p99, self.queue_oldest_ms)

    @property
    def peak(self) -> int:
        """The most requests in flight at a time."""
        return max(self.in_flight, self.in_flight_peak)

    @property
    def lag(self) -> int:
        """The lag of the jobs that call this model, in records."""
        return sum(job.lag for job in self.jobs)

    def flat(self) -> dict[str, float | int | str]:
        """Every input by its name, with jobs as text: the fields of a point."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "jobs"}
        known = {name: value for name, value in plain.items() if value is not None}
        rate = sum(job.lag_rate for job in self.jobs)
        return known | {
            "lag": self.lag,
            "lag_rate": rate,
            "jobs": "; ".join(map(_describe, self.jobs)),
        }


def _describe(job: JobStatus) -> str:
    one = bottleneck(job)
    slowest = f", bottleneck {one.name} busy {one.busy:.2f}" if one else ""
    return f"{job.name}: lag {job.lag}, {job.lag_rate:+.1f}/s{slowest}"
