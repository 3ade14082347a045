"""What came of a replay, in figures: pure."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import Any

import msgspec

from sage_flink.flow.call_options import PRIORITIES
from sage_gateway.replay.simulate import Outcome, Replay


class ClassFigures(msgspec.Struct, frozen=True):
    """The waits of one class of those that were let go, in milliseconds."""

    priority: str
    requests: int
    wait_ms_p50: float
    wait_ms_p99: float


class Figures(msgspec.Struct, frozen=True):
    """One model under one policy. ``goodput``: answered in time, a second.

    ``missed``: had a deadline and were not answered before it. ``jain``: of the tenants' mean share
    of their time that was no waiting: 1 where all are treated alike. ``replicas``: on average.
    """

    model: str
    policy: str
    requests: int
    refused: int
    missed: int
    goodput: float
    jain: float
    replicas: float
    replicas_max: int
    classes: tuple[ClassFigures, ...]

    def told(self) -> dict[str, Any]:
        """As JSON."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def figures(model: str, policy: str, replay: Replay) -> Figures:
    """The figures of what came of one request at least."""
    outcomes = replay.outcomes
    began_s = min(one.arrived_s for one in outcomes)
    ended_s = max(one.arrived_s + one.waited_s + one.service_s for one in outcomes)
    good = sum(one.in_time for one in outcomes)
    late = [one for one in outcomes if one.row.deadline_s is not None and not one.in_time]
    return Figures(
        model=model,
        policy=policy,
        requests=len(outcomes),
        refused=sum(one.status != 200 for one in outcomes),
        missed=len(late),
        goodput=round(good / max(ended_s - began_s, 1e-9), 3),
        jain=round(jain(list(_shares(outcomes).values())), 4),
        replicas=round(mean(replay.replicas), 2),
        replicas_max=max(replay.replicas),
        classes=tuple(_class(name, outcomes) for name in _present(outcomes)),
    )


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 of equal shares, 1/n where one has all.

    >>> jain([1.0, 1.0]), jain([1.0, 0.0])
    (1.0, 0.5)
    """
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of ``values`` do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _shares(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """By tenant: the mean of what part of its time a request was served, 0 of a refused one."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in outcomes:
        whole_s = one.waited_s + one.service_s
        served = one.service_s / whole_s if whole_s > 0 else 1.0
        found[one.row.tenant].append(served if one.status == 200 else 0.0)
    return {tenant: sum(parts) / len(parts) for tenant, parts in found.items()}


def _present(outcomes: Sequence[Outcome]) -> list[str]:
    there = {one.row.priority for one in outcomes}
    return [name for name in PRIORITIES if name in there]


def _class(name: str, outcomes: Sequence[Outcome]) -> ClassFigures:
    waits = [o.waited_s for o in outcomes if o.row.priority == name and o.status == 200]
    p50, p99 = (round(1000 * percentile(waits, share), 1) for share in (0.5, 0.99))
    return ClassFigures(name, sum(o.row.priority == name for o in outcomes), p50, p99)
