"""How many replicas a model should have, and why: a pure function of :class:`Inputs`.

The rules, in this order: the bounds; a request queued for a model at zero; pressure, which adds;
idleness and surplus, which remove; and, if a job is slow while the pool has room, a report of the
operator that is the bottleneck. Within ``up_cooldown_s`` of any change no replica is added, within
``down_cooldown_s`` none is removed; only the bounds and the first replica of a model at zero are
exempt from that.

Why the streams matter: the queue of a pool shows only as many records as the call may have in
flight, however many are waiting in Kafka. So a lag that rises while the call is the bottleneck adds
replicas even if waits are short; a lag that rises behind another operator does not, and a lag keeps
a model from being scaled to zero.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from sage_gateway.autoscaling.inputs import Inputs
from sage_gateway.autoscaling.streams import elsewhere, waits_for_pool
from sage_gateway.config.pool_spec import ScalingSpec

#: Queued requests are a burst until there were some for this many of the last seconds (or as long
#: as the cool-down): a Python step emits its records in bundles, and a call sends all of one.
BURST_S = 4.0
#: The queue should be empty after this many seconds.
CLEAR_S = 10.0
#: A replica is in surplus when the others would be filled to at most this share ...
FILL = 0.7
#: ... and every measure is below this share of its target.
CALM = 0.5

Action = Literal["add", "remove", "hold"]


class Cause(StrEnum):
    """The reason of a decision."""

    BOUNDS = "bounds"
    DEMAND = "demand"
    REFUSED = "refused"
    QUEUE_WAIT = "queue_wait"
    TTFT = "ttft"
    TPOT = "tpot"
    LAG = "lag"
    IDLE = "idle"
    SURPLUS = "surplus"
    NOT_THE_POOL = "not_the_pool"
    STARTING = "starting"
    COOL_DOWN = "cool_down"
    AT_MAX = "at_max"
    BUDGET = "budget"
    STEADY = "steady"


@dataclass(frozen=True, slots=True)
class ScalingState:
    """The memory between decisions: the last change, and since when fewer replicas are enough."""

    changed_s: float = -math.inf
    calm_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision: ``replicas`` are wanted from now on; ``state`` is for the next decision."""

    action: Action
    replicas: int
    cause: Cause
    words: str
    inputs: Inputs
    state: ScalingState
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class _Proposal:
    replicas: int
    cause: Cause
    words: str


def decide(spec: ScalingSpec, inputs: Inputs, state: ScalingState, now_s: float) -> Decision:
    """The decision at ``now_s``, of a monotonic clock."""
    if not _calm(spec, inputs):
        state = replace(state, calm_since_s=None)
    elif state.calm_since_s is None:
        state = replace(state, calm_since_s=now_s)
    proposal = (
        _bounds(spec, inputs)
        or _from_zero(spec, inputs)
        or _scale_up(spec, inputs, now_s - state.changed_s)
        or _scale_to_zero(spec, inputs, now_s - state.changed_s)
        or _scale_down(spec, inputs, state, now_s)
        or _steady(inputs)
    )
    if proposal.replicas != inputs.replicas:
        state = ScalingState(changed_s=now_s)
    return Decision(
        _action(inputs.replicas, proposal.replicas),
        proposal.replicas,
        proposal.cause,
        proposal.words,
        inputs,
        state,
        spec.dry_run,
    )


def reject(decision: Decision, why: str) -> Decision:
    """The decision after the pool rejected it, because of memory, cores or ``why``.

    The cool-down applies: the change is not tried again before it is over.
    """
    words = f"{decision.action} to {decision.replicas} was refused: {why}"
    stays = decision.inputs.replicas
    return replace(decision, action="hold", replicas=stays, cause=Cause.BUDGET, words=words)


def _action(now: int, then: int) -> Action:
    return "hold" if then == now else "add" if then > now else "remove"


def _bounds(spec: ScalingSpec, inputs: Inputs) -> _Proposal | None:
    within = min(max(inputs.replicas, spec.min), spec.max)
    if within == inputs.replicas:
        return None
    words = f"{_count(inputs.replicas)} wanted, outside {spec.min} to {spec.max}"
    return _Proposal(within, Cause.BOUNDS, words)


def _from_zero(spec: ScalingSpec, inputs: Inputs) -> _Proposal | None:
    """The first replica of a model at zero, as soon as a request is queued."""
    if inputs.replicas:
        return None
    waiting = inputs.queue_length + inputs.background
    if not waiting:
        return _Proposal(0, Cause.IDLE, "at zero, without requests")
    return _Proposal(1, Cause.DEMAND, f"{waiting} queued, without a replica")


def _scale_up(spec: ScalingSpec, inputs: Inputs, since_s: float) -> _Proposal | None:
    found = _pressure(spec, inputs)
    if found is None:
        return None
    cause, words = found
    stays = inputs.replicas
    if stays >= spec.max:
        return _Proposal(stays, Cause.AT_MAX, f"{words}; {spec.max} is the maximum")
    if inputs.starting:
        words = f"{words}; {_count(inputs.starting)} starting"
        return _Proposal(stays, Cause.STARTING, words)
    if since_s < spec.up_cooldown_s:
        words = f"{words}; changed {since_s:.0f} s ago, cool-down {spec.up_cooldown_s:g} s"
        return _Proposal(stays, Cause.COOL_DOWN, words)
    rates = f"{inputs.arrival_rate:.1f} requests/s arrive, {inputs.served_rate:.1f} are served"
    return _Proposal(min(spec.max, _replicas_needed(inputs)), cause, f"{words}; {rates}")


def _pressure(spec: ScalingSpec, inputs: Inputs) -> tuple[Cause, str] | None:
    """Why more replicas would help now, if they would."""
    if inputs.refused:
        return Cause.REFUSED, f"{inputs.refused} rejected for lack of room"
    lasting = inputs.waited_s >= min(BURST_S, spec.up_cooldown_s)
    if lasting and inputs.wait_ms > spec.target_queue_wait_ms:
        words = f"queue wait {inputs.wait_ms:,.0f} ms, target {spec.target_queue_wait_ms:,.0f}"
        return Cause.QUEUE_WAIT, f"{words}; {inputs.queue_length} queued"
    shared = inputs.peak > inputs.ready  # a request alone on a replica cannot be faster
    if (
        shared
        and spec.target_ttft_ms is not None
        and _over(inputs.ttft_ms_p99, spec.target_ttft_ms)
    ):
        return Cause.TTFT, f"TTFT {inputs.ttft_ms_p99:,.0f} ms, target {spec.target_ttft_ms:,.0f}"
    if (
        shared
        and spec.target_tpot_ms is not None
        and _over(inputs.tpot_ms_p99, spec.target_tpot_ms)
    ):
        return Cause.TPOT, f"TPOT {inputs.tpot_ms_p99:,.1f} ms, target {spec.target_tpot_ms:,.1f}"
    if lag := _lag_of_pool(inputs):
        return Cause.LAG, lag
    return None


def _lag_of_pool(inputs: Inputs) -> str:
    """The job whose lag rises because the pool is full; empty without one."""
    full = inputs.queue_length > 0 or 0 < inputs.limit <= inputs.peak
    for job in inputs.jobs:
        if full and job.rising and waits_for_pool(job):
            return (
                f"the lag of job {job.name} is {job.lag:,} and rises by {job.lag_rate:,.1f}/s, its "
                "call is the bottleneck, and the pool is full"
            )
    return ""


def _replicas_needed(inputs: Inputs) -> int:
    """The replicas for the arrivals, the queue and the lag; one more at least, twice at most.

    The capacity of one replica is what it serves now, because it is under pressure.
    """
    now = inputs.replicas
    if not inputs.ready or inputs.served_rate <= 0:
        return now + 1
    rising = sum(job.lag_rate for job in inputs.jobs if job.rising and waits_for_pool(job))
    wanted = inputs.arrival_rate + inputs.queue_length / CLEAR_S + rising
    needed = min(wanted * inputs.ready / inputs.served_rate, 2.0 * now)
    return max(math.ceil(needed), now + 1)


def _scale_to_zero(spec: ScalingSpec, inputs: Inputs, since_s: float) -> _Proposal | None:
    """Zero replicas after ``idle_s``, unless a job has records for it."""
    busy = inputs.in_flight or inputs.queue_length or inputs.background
    if spec.min or busy or inputs.idle_s < spec.idle_s:
        return None
    words = f"no request for {inputs.idle_s:.0f} s"
    if inputs.lag:
        return _Proposal(
            inputs.replicas, Cause.LAG, f"{words}, but a lag of {inputs.lag:,} records"
        )
    if since_s < spec.down_cooldown_s:
        return _Proposal(inputs.replicas, Cause.COOL_DOWN, f"{words}; changed {since_s:.0f} s ago")
    return _Proposal(0, Cause.IDLE, words)


def _scale_down(
    spec: ScalingSpec, inputs: Inputs, state: ScalingState, now_s: float
) -> _Proposal | None:
    if state.calm_since_s is None or inputs.replicas <= max(1, spec.min):
        return None
    calm_s, changed_s = now_s - state.calm_since_s, now_s - state.changed_s
    if min(calm_s, changed_s) < spec.down_cooldown_s:
        return None
    words = (
        f"{_count(inputs.replicas - 1)} would have been enough for {calm_s:.0f} s: {_load(inputs)}"
    )
    return _Proposal(inputs.replicas - 1, Cause.SURPLUS, words)


def _calm(spec: ScalingSpec, inputs: Inputs) -> bool:
    """Whether one replica fewer would be enough."""
    left = inputs.limit * (inputs.ready - 1) / inputs.ready if inputs.ready else 0
    alone = inputs.peak < inputs.ready  # not faster with more replicas
    fast = alone or not (
        _over(inputs.ttft_ms_p99, spec.target_ttft_ms, CALM)
        or _over(inputs.tpot_ms_p99, spec.target_tpot_ms, CALM)
    )
    return (
        fast
        and not inputs.starting
        and not inputs.queue_length
        and not inputs.refused
        and inputs.peak <= FILL * left
        and inputs.wait_ms <= CALM * spec.target_queue_wait_ms
        and not _lag_of_pool(inputs)
    )


def _steady(inputs: Inputs) -> _Proposal:
    """No change; if a job is slow, its bottleneck."""
    found = list(elsewhere(inputs.jobs))
    if found and not inputs.queue_length:
        words = "the pool is not the bottleneck: " + "; ".join(found)
        return _Proposal(inputs.replicas, Cause.NOT_THE_POOL, words)
    return _Proposal(inputs.replicas, Cause.STEADY, _load(inputs))


def _over(value: float | None, target: float | None, share: float = 1.0) -> bool:
    return value is not None and target is not None and value > share * target


def _load(inputs: Inputs) -> str:
    return f"{inputs.peak} of {inputs.limit} in flight at most, {inputs.queue_length} queued"


def _count(replicas: int) -> str:
    return f"{replicas} replica{'s' * (replicas != 1)}"
