"""The figures of a replay, computed from its outcomes: pure."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import mean
from typing import Any

import msgspec

from sage_flink.flow.call_options import PRIORITIES
from sage_gateway.replay.simulate import ReplayResult, RequestOutcome


class ClassFigures(msgspec.Struct, frozen=True):
    """The queue waits of one class of dispatched requests, in milliseconds."""

    priority: str
    requests: int
    wait_ms_p50: float
    wait_ms_p99: float


class ReplayFigures(msgspec.Struct, frozen=True):
    """One model under one policy. ``goodput``: requests per second answered in time.

    ``missed``: requests not answered before their deadline. ``jain``: fairness of the tenants' mean
    share of served time: 1 if all are treated alike. ``replicas``: the average.
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

    def to_json(self) -> dict[str, Any]:
        """The figures as a JSON object."""
        page: dict[str, Any] = msgspec.to_builtins(self)
        return page


def figures(model: str, policy: str, replay: ReplayResult) -> ReplayFigures:
    """The figures of a replay of at least one request."""
    outcomes = replay.outcomes
    first_s = min(one.arrived_s for one in outcomes)
    last_s = max(one.arrived_s + one.waited_s + one.service_s for one in outcomes)
    good = sum(one.in_time for one in outcomes)
    missed = [one for one in outcomes if one.row.deadline_s is not None and not one.in_time]
    return ReplayFigures(
        model=model,
        policy=policy,
        requests=len(outcomes),
        refused=sum(one.status != 200 for one in outcomes),
        missed=len(missed),
        goodput=round(good / max(last_s - first_s, 1e-9), 3),
        jain=round(jain(list(_shares(outcomes).values())), 4),
        replicas=round(mean(replay.replicas), 2),
        replicas_max=max(replay.replicas),
        classes=tuple(_class(name, outcomes) for name in _present(outcomes)),
    )


def jain(shares: Sequence[float]) -> float:
    """Jain's index of fairness: 1 of equal shares, 1/n if one tenant has all.

    >>> jain([1.0, 1.0]), jain([1.0, 0.0])
    (1.0, 0.5)
    """
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of ``values`` do not exceed; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def _shares(outcomes: Sequence[RequestOutcome]) -> dict[str, float]:
    """By tenant: the mean share of a request's time in which it was served, 0 if refused."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in outcomes:
        whole_s = one.waited_s + one.service_s
        served = one.service_s / whole_s if whole_s > 0 else 1.0
        found[one.row.tenant].append(served if one.status == 200 else 0.0)
    return {tenant: sum(parts) / len(parts) for tenant, parts in found.items()}


def _present(outcomes: Sequence[RequestOutcome]) -> list[str]:
    there = {one.row.priority for one in outcomes}
    return [name for name in PRIORITIES if name in there]


def _class(name: str, outcomes: Sequence[RequestOutcome]) -> ClassFigures:
    waits = [o.waited_s for o in outcomes if o.row.priority == name and o.status == 200]
    p50, p99 = (round(1000 * percentile(waits, share), 1) for share in (0.5, 0.99))
    return ClassFigures(name, sum(o.row.priority == name for o in outcomes), p50, p99)
