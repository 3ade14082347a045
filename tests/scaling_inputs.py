"""Inputs of the scaling decision: jobs, and the operator that is their bottleneck."""

from sage_gateway.autoscaling import JobStatus, Operator, ScalingState

LONG_AGO = ScalingState(changed_s=-1e6, calm_since_s=-1e6)


def operators(slow: str, *, calls: bool = True) -> tuple[Operator, ...]:
    """read -> map -> embed -> write, of which ``slow`` is the bottleneck."""
    names = ["read", "map", "embed", "write"]
    at = names.index(slow)
    return tuple(
        Operator(
            name,
            busy=0.98 if name == slow else 0.1,
            backpressured=0.9 if i < at else 0.0,
            inputs=tuple(names[i - 1 : i] if i else ()),
            calls=calls and name == "embed",
        )
        for i, name in enumerate(names)
    )


def job(slow: str, rate: float = 40.0) -> JobStatus:
    return JobStatus("ingest", lag=9000, lag_rate=rate, operators=operators(slow))
