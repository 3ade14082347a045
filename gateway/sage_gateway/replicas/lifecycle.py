"""A replica's life as pure functions: what is seen goes in, what it now is comes out.

::

    STARTING ── answered ──► READY ── asked to stop ──► DRAINING ── exited ──► STOPPED
        │                      │
        └── no start, exited, ─┴── exited, missed too many checks ──► FAILED ── started ──► STARTING
            too late

FAILED means: end what is left of the process, and start again at ``retry_at_s``. One that is asked
to leave goes on as before, but for another that takes over (:mod:`reconciler`). Its one
writer is its :class:`replica_supervisor.Keeper`; times are of the monotonic clock.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from sage_gateway.config.pool_spec import HealthSpec


class State(StrEnum):
    """Where a replica stands; only READY is sent requests."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Replica:
    """What is known of one replica.

    ``restarts`` counts since it was last stable. ``leaving``: another is to take its place.
    """

    name: str
    state: State
    since_s: float
    missed: int = 0
    restarts: int = 0
    retry_at_s: float = 0.0
    reason: str = ""
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """A process was started."""


@dataclass(frozen=True, slots=True)
class Probed:
    """It was asked whether it is well; ``why`` it is not, where that is known."""

    healthy: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class NotStarted:
    """There is no process: ``why``."""

    why: str


@dataclass(frozen=True, slots=True)
class Exited:
    """The process has ended; ``code`` is negative for a signal."""

    code: int


@dataclass(frozen=True, slots=True)
class StopAsked:
    """Nobody wants this replica any more."""


@dataclass(frozen=True, slots=True)
class LeaveAsked:
    """Another is to take its place, and only then is it to stop."""


Event = Started | NotStarted | Probed | Exited | StopAsked | LeaveAsked
LIVE = frozenset({State.STARTING, State.READY, State.FAILED})


def advance(replica: Replica, event: Event, now_s: float, limits: HealthSpec) -> Replica:
    """The replica after ``event``; an event that means nothing in its state changes nothing."""
    match replica.state, event:
        case State.FAILED, Started():
            return replace(replica, state=State.STARTING, since_s=now_s, missed=0)
        case State.STARTING, Probed(healthy=True):
            return replace(replica, state=State.READY, since_s=now_s, missed=0, reason="")
        case State.STARTING, Probed(why=why) if now_s - replica.since_s >= limits.start_timeout_s:
            told = f": {why}" if why else ""
            reason = f"not healthy within {limits.start_timeout_s:g} s{told}"
            return _failed(replica, reason, now_s, limits)
        case State.STARTING, NotStarted(why):
            return _failed(replica, f"cannot start: {why}", now_s, limits)
        case State.READY, Probed(healthy=True):
            stable = now_s - replica.since_s >= limits.stable_s
            return replace(replica, missed=0, restarts=0 if stable else replica.restarts)
        case State.READY, Probed() if replica.missed + 1 >= limits.missed_max:
            return _failed(replica, f"{limits.missed_max} health checks missed", now_s, limits)
        case State.READY, Probed():
            return replace(replica, missed=replica.missed + 1)
        case ((State.STARTING | State.READY), Exited(code)):
            return _failed(replica, f"exited with {code}", now_s, limits)
        case ((State.STARTING | State.READY), StopAsked()):
            return replace(replica, state=State.DRAINING, since_s=now_s)
        case ((State.STARTING | State.READY | State.FAILED), LeaveAsked()):
            return replace(replica, leaving=True)
        case (State.FAILED, StopAsked()) | (State.DRAINING, Exited()):
            return replace(replica, state=State.STOPPED, since_s=now_s)
    return replica


def born(name: str, now_s: float) -> Replica:
    """A replica whose process is being started for the first time."""
    return Replica(name, State.STARTING, now_s)


def backoff_s(restarts: int, limits: HealthSpec) -> float:
    """The pause before start number ``restarts`` + 1: doubling, bounded."""
    return float(min(limits.backoff_max_s, limits.backoff_first_s * 2 ** min(restarts, 30)))


def _failed(replica: Replica, reason: str, now_s: float, limits: HealthSpec) -> Replica:
    return replace(
        replica,
        state=State.FAILED,
        since_s=now_s,
        restarts=replica.restarts + 1,
        retry_at_s=now_s + backoff_s(replica.restarts, limits),
        reason=reason,
    )
