"""How many replicas a model should have, and why: a pure function of what is known.

In this order: the bounds; a request that waits for a model at zero; pressure, which adds; idleness
and surplus, which remove; and where a job is slow while the pool has room, the operator that holds
it up. Within ``up_cooldown_s`` of any change nothing is added, within ``down_cooldown_s`` nothing
removed; only the bounds and the first replica of a model at zero do not wait.

What the stream adds: the queue of a pool shows only as many records as the call may have in flight,
however many wait in Kafka. So a lag that rises while the call is the bottleneck adds replicas
though waits are short; one that rises behind another operator does not, and a lag keeps a model
from zero.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from sage_gateway.autoscaling.inputs import Inputs
from sage_gateway.autoscaling.streams import elsewhere, waits_for_pool
from sage_gateway.config.pool_spec import ScalingSpec

#: Who waits is a burst until somebody has waited for so many of the last seconds (or as long as the
#: cool-down): a Python step hands its records on in bundles, and a call asks for them all at once.
BURST_S = 4.0
#: What waits should be gone in so many seconds.
DRAIN_S = 10.0
#: Replicas are in surplus when the others would be filled no more than so far ...
FILL = 0.7
#: ... and everything is well below its target.
CALM = 0.5

Action = Literal["add", "remove", "hold"]


class Cause(StrEnum):
    """Why."""

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
class State:
    """What the next decision has to know: when the last change was, since when fewer would do."""

    changed_s: float = -math.inf
    calm_since_s: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """``replicas`` is how many there should be from now on; ``state`` is for the next one."""

    action: Action
    replicas: int
    cause: Cause
    words: str
    inputs: Inputs
    state: State
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class _Wish:
    replicas: int
    cause: Cause
    words: str


def decide(spec: ScalingSpec, inputs: Inputs, state: State, now_s: float) -> Decision:
    """The decision at ``now_s``, of a clock that never goes back."""
    if not _calm(spec, inputs):
        state = replace(state, calm_since_s=None)
    elif state.calm_since_s is None:
        state = replace(state, calm_since_s=now_s)
    wish = (
        _bounded(spec, inputs)
        or _woken(spec, inputs)
        or _more(spec, inputs, now_s - state.changed_s)
        or _none(spec, inputs, now_s - state.changed_s)
        or _fewer(spec, inputs, state, now_s)
        or _steady(inputs)
    )
    if wish.replicas != inputs.replicas:
        state = State(changed_s=now_s)
    return Decision(
        _action(inputs.replicas, wish.replicas),
        wish.replicas,
        wish.cause,
        wish.words,
        inputs,
        state,
        spec.dry_run,
    )


def refused(decision: Decision, why: str) -> Decision:
    """The decision after the owner of the replicas would not: memory, cores, or what it says.

    The cool-down runs: it is not asked again at once.
    """
    words = f"{decision.action} to {decision.replicas} was refused: {why}"
    stays = decision.inputs.replicas
    return replace(decision, action="hold", replicas=stays, cause=Cause.BUDGET, words=words)


def _action(now: int, then: int) -> Action:
    return "hold" if then == now else "add" if then > now else "remove"


def _bounded(spec: ScalingSpec, inputs: Inputs) -> _Wish | None:
    within = min(max(inputs.replicas, spec.min), spec.max)
    if within == inputs.replicas:
        return None
    words = f"{_count(inputs.replicas)} wanted, outside {spec.min} to {spec.max}"
    return _Wish(within, Cause.BOUNDS, words)


def _woken(spec: ScalingSpec, inputs: Inputs) -> _Wish | None:
    """One of a model at zero as soon as anybody waits."""
    if inputs.replicas:
        return None
    waiting = inputs.queue_length + inputs.background
    if not waiting:
        return _Wish(0, Cause.IDLE, "at zero, and nobody asks")
    return _Wish(1, Cause.DEMAND, f"{waiting} waiting, and no replica")


def _more(spec: ScalingSpec, inputs: Inputs, since_s: float) -> _Wish | None:
    found = _pressure(spec, inputs)
    if found is None:
        return None
    cause, words = found
    stays = inputs.replicas
    if stays >= spec.max:
        return _Wish(stays, Cause.AT_MAX, f"{words}; there are {spec.max}, the most allowed")
    if inputs.starting:
        words = f"{words}; {_count(inputs.starting)} starting"
        return _Wish(stays, Cause.STARTING, words)
    if since_s < spec.up_cooldown_s:
        words = f"{words}; changed {since_s:.0f} s ago, cool-down {spec.up_cooldown_s:g} s"
        return _Wish(stays, Cause.COOL_DOWN, words)
    rates = f"{inputs.arrival_rate:.1f} requests/s come, {inputs.served_rate:.1f} are answered"
    return _Wish(min(spec.max, _needed(inputs)), cause, f"{words}; {rates}")


def _pressure(spec: ScalingSpec, inputs: Inputs) -> tuple[Cause, str] | None:
    """Why more replicas would help now."""
    if inputs.refused:
        return Cause.REFUSED, f"{inputs.refused} turned away for want of room"
    lasting = inputs.waited_s >= min(BURST_S, spec.up_cooldown_s)
    if lasting and inputs.wait_ms > spec.target_queue_wait_ms:
        words = f"queue wait {inputs.wait_ms:,.0f} ms, target {spec.target_queue_wait_ms:,.0f}"
        return Cause.QUEUE_WAIT, f"{words}; {inputs.queue_length} waiting"
    shared = inputs.peak > inputs.ready  # one request alone is as fast as it gets
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
    if behind := _behind(inputs):
        return Cause.LAG, behind
    return None


def _behind(inputs: Inputs) -> str:
    """The job that falls behind because of the pool, which is full; empty where there is none."""
    full = inputs.queue_length > 0 or 0 < inputs.limit <= inputs.peak
    for job in inputs.jobs:
        if full and job.rising and waits_for_pool(job):
            return (
                f"the lag of job {job.name} is {job.lag:,} and rises by {job.lag_rate:,.1f}/s, its "
                "call is the bottleneck, and the pool is full"
            )
    return ""


def _needed(inputs: Inputs) -> int:
    """How many replicas keep up with what comes and what waits; one more at least, twice at most.

    What one replica answers is as measured now, which is what it can: it is under pressure.
    """
    now = inputs.replicas
    if not inputs.ready or inputs.served_rate <= 0:
        return now + 1
    rising = sum(job.lag_rate for job in inputs.jobs if job.rising and waits_for_pool(job))
    wanted = inputs.arrival_rate + inputs.queue_length / DRAIN_S + rising
    needed = min(wanted * inputs.ready / inputs.served_rate, 2.0 * now)
    return max(math.ceil(needed), now + 1)


def _none(spec: ScalingSpec, inputs: Inputs, since_s: float) -> _Wish | None:
    """None after ``idle_s``, unless a job has work for it."""
    busy = inputs.in_flight or inputs.queue_length or inputs.background
    if spec.min or busy or inputs.idle_s < spec.idle_s:
        return None
    words = f"nobody asked for {inputs.idle_s:.0f} s"
    if inputs.lag:
        return _Wish(inputs.replicas, Cause.LAG, f"{words}, but {inputs.lag:,} records wait")
    if since_s < spec.down_cooldown_s:
        return _Wish(inputs.replicas, Cause.COOL_DOWN, f"{words}; changed {since_s:.0f} s ago")
    return _Wish(0, Cause.IDLE, words)


def _fewer(spec: ScalingSpec, inputs: Inputs, state: State, now_s: float) -> _Wish | None:
    if state.calm_since_s is None or inputs.replicas <= max(1, spec.min):
        return None
    calm_s, changed_s = now_s - state.calm_since_s, now_s - state.changed_s
    if min(calm_s, changed_s) < spec.down_cooldown_s:
        return None
    words = f"{_count(inputs.replicas - 1)} would do for {calm_s:.0f} s: {_load(inputs)}"
    return _Wish(inputs.replicas - 1, Cause.SURPLUS, words)


def _calm(spec: ScalingSpec, inputs: Inputs) -> bool:
    """Whether one replica fewer would do."""
    left = inputs.limit * (inputs.ready - 1) / inputs.ready if inputs.ready else 0
    alone = inputs.peak < inputs.ready  # as fast as it gets, then too
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
        and not _behind(inputs)
    )


def _steady(inputs: Inputs) -> _Wish:
    """Nothing to do, and where a job is slow, what holds it up."""
    found = list(elsewhere(inputs.jobs))
    if found and not inputs.queue_length:
        words = "the pool is not the bottleneck: " + "; ".join(found)
        return _Wish(inputs.replicas, Cause.NOT_THE_POOL, words)
    return _Wish(inputs.replicas, Cause.STEADY, _load(inputs))


def _over(value: float | None, target: float | None, share: float = 1.0) -> bool:
    return value is not None and target is not None and value > share * target


def _load(inputs: Inputs) -> str:
    return f"{inputs.peak} of {inputs.limit} in flight at most, {inputs.queue_length} waiting"


def _count(replicas: int) -> str:
    return f"{replicas} replica{'s' * (replicas != 1)}"
