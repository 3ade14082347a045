"""The lifecycle of a replica, as a pure function from state and event to the next state.

::

    STARTING ── healthy ──► READY ── stop requested ──► DRAINING ── exited ──► STOPPED
        │                     │
        └── start failed, ────┴── exited, missed too many checks ──► FAILED ── started ──► STARTING
            exited, too slow

FAILED means: end what is left of the process, and start again at ``retry_at_s``. A replica that is
being replaced stays in service until its successor is ready (:mod:`reconciler`). The only writer is
the replica's :class:`sage_gateway.controlplane.replica_supervisor.ReplicaSupervisor`; times are of
the monotonic clock.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from sage_gateway.config.pool_spec import HealthSpec


class ReplicaState(StrEnum):
    """The state of a replica; only a READY one is sent requests."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Replica:
    """The state of one replica with its history.

    ``restarts`` counts since it was last stable. ``leaving``: it is being replaced.
    """

    name: str
    state: ReplicaState
    since_s: float
    missed: int = 0
    restarts: int = 0
    retry_at_s: float = 0.0
    reason: str = ""
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """A process was started."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of a health check, with the reason if it is negative and known."""

    healthy: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StartFailed:
    """No process could be started."""

    reason: str


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """The process has ended; ``code`` is negative for a signal, ``reason`` empty if unknown."""

    code: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """The replica is in surplus."""


@dataclass(frozen=True, slots=True)
class ReplacementRequested:
    """The replica is to be stopped once a successor is ready."""


ReplicaEvent = (
    ProcessStarted
    | StartFailed
    | ProbeResult
    | ProcessExited
    | StopRequested
    | ReplacementRequested
)
LIVE = frozenset({ReplicaState.STARTING, ReplicaState.READY, ReplicaState.FAILED})


def advance(replica: Replica, event: ReplicaEvent, now_s: float, limits: HealthSpec) -> Replica:
    """The replica after ``event``; an event without a meaning in its state changes nothing."""
    state = ReplicaState
    match replica.state, event:
        case state.FAILED, ProcessStarted():
            return replace(replica, state=state.STARTING, since_s=now_s, missed=0)
        case state.STARTING, ProbeResult(healthy=True):
            return replace(replica, state=state.READY, since_s=now_s, missed=0, reason="")
        case state.STARTING, ProbeResult(reason=why) if _start_is_overdue(replica, now_s, limits):
            reason = f"not healthy within {limits.start_timeout_s:g} s{': ' * bool(why)}{why}"
            return _fail(replica, reason, now_s, limits)
        case state.STARTING, StartFailed(why):
            return _fail(replica, f"cannot start: {why}", now_s, limits)
        case state.READY, ProbeResult(healthy=True):
            stable = now_s - replica.since_s >= limits.stable_s
            return replace(replica, missed=0, restarts=0 if stable else replica.restarts)
        case state.READY, ProbeResult() if replica.missed + 1 >= limits.missed_max:
            return _fail(replica, f"{limits.missed_max} health checks missed", now_s, limits)
        case state.READY, ProbeResult():
            return replace(replica, missed=replica.missed + 1)
        case ((state.STARTING | state.READY), ProcessExited(code, why)):
            return _fail(replica, f"exited with {code}{': ' * bool(why)}{why}", now_s, limits)
        case ((state.STARTING | state.READY), StopRequested()):
            return replace(replica, state=state.DRAINING, since_s=now_s)
        case ((state.STARTING | state.READY | state.FAILED), ReplacementRequested()):
            return replace(replica, leaving=True)
        case (state.FAILED, StopRequested()) | (state.DRAINING, ProcessExited()):
            return replace(replica, state=state.STOPPED, since_s=now_s)
    return replica


def new_replica(name: str, now_s: float) -> Replica:
    """A replica before the first start of its process."""
    return Replica(name, ReplicaState.STARTING, now_s)


def backoff_s(restarts: int, limits: HealthSpec) -> float:
    """The pause before start number ``restarts`` + 1: doubling, bounded."""
    return float(min(limits.backoff_max_s, limits.backoff_first_s * 2 ** min(restarts, 30)))


def _start_is_overdue(replica: Replica, now_s: float, limits: HealthSpec) -> bool:
    return now_s - replica.since_s >= limits.start_timeout_s


def _fail(replica: Replica, reason: str, now_s: float, limits: HealthSpec) -> Replica:
    return replace(
        replica,
        state=ReplicaState.FAILED,
        since_s=now_s,
        restarts=replica.restarts + 1,
        retry_at_s=now_s + backoff_s(replica.restarts, limits),
        reason=reason,
    )
