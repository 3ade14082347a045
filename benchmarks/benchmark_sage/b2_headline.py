"""Headline figures of B2: ratios of sides within one repeat."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark_sage.results import Headline

#: Side -> arm -> one row a repeat.
Rows = dict[str, dict[str, list[dict[str, Any]]]]
ARMS_OVER_LIMIT = ("constant", "lognormal s=0.5", "lognormal s=1")


def headline(rows: Rows) -> list[Headline]:
    """Every ratio that has at least one repeat in which both of its sides ran."""
    found = [
        _over(rows, "limit", arm, "busy", f"slots busy over limit, {arm}", 0.90, 0.97)
        for arm in ARMS_OVER_LIMIT
    ]
    arm = "lognormal s=1"
    metric = f"slots busy over PyFlink's default, {arm}"
    found.append(_over(rows, "pyflink_default", arm, "busy", metric, 1.5, 1.7))
    found.append(_checkpoints(rows["sage"]))
    return [one for one in found if one is not None]


def _over(
    rows: Rows, other: str, arm: str, figure: str, metric: str, floor: float, moonshot: float
) -> Headline | None:
    values = ratios(rows["sage"].get(arm, []), rows[other].get(arm, []), figure)
    if not values:
        return None
    return Headline.of(metric, values, unit="ratio", floor=floor, moonshot=moonshot)


def _checkpoints(ours: Mapping[str, Sequence[Mapping[str, Any]]]) -> Headline | None:
    with_them, without = "lognormal s=1", "s=1, no checkpoints"
    if with_them not in ours or without not in ours:
        return None
    values = ratios(ours[with_them], ours[without], "busy")
    if not values:
        return None
    metric = "slots busy with 1-s checkpoints over none, lognormal s=1"
    return Headline.of(metric, values, unit="ratio", floor=0.97, moonshot=1.0)


def ratios(
    ours: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], figure: str
) -> list[float]:
    """``figure`` of ours over theirs, for the repeats in which both exist.

    >>> ratios([{"busy": 0.9}, {"error": "away"}], [{"busy": 0.5}, {"busy": 0.5}], "busy")
    [1.8]
    """
    pairs = zip(ours, others, strict=True)
    return [a[figure] / b[figure] for a, b in pairs if figure in a and b.get(figure)]
