"""Headline figures of B4: differences and ratios of sides within one repeat."""

from collections.abc import Callable, Mapping
from typing import Any

from benchmark_sage.results import Headline

Row = Mapping[str, Any]


class Rows(dict[str, dict[str, list[dict[str, Any]]]]):
    """Side -> arm -> one row a repeat."""

    def column(self, side: str, arm: str, figure: str) -> list[float | None]:
        """The figure of each repeat; None where a repeat has no such figure."""
        return [row.get(figure) for row in self.get(side, {}).get(arm, [])]

    def peak(self, side: str) -> list[float | None]:
        """The highest rate of unstreamed requests a second that the side reached, by repeat."""
        arms = [arm for arm in self.get(side, {}) if arm.startswith("whole, 0 ms")]
        columns = [self.column(side, arm, "requests_per_s") for arm in arms]
        return [max((v for v in row if v), default=None) for row in zip(*columns, strict=True)]


def headline(rows: Rows) -> list[Headline]:
    """Every figure that has at least one repeat in which both of its sides ran."""
    found = []
    for side, named in (("sage", ""), ("sage_plain", ", without ids and budgets")):
        found += [
            _difference(
                rows, side, "p50_ms", "whole, 0 ms, c=1", f"added p50, c=1{named}", 1.0, 0.4
            ),
            _over(rows, side, "vllm-router", named, 0.45, 1.0),
            _over(rows, side, "litellm", named, 10.0, 10.0),
            _over(rows, side, "before", named, 1.0, 1.1) if side == "sage" else None,
            _half(rows, side, named),
        ]
    ttft = "added p50 to the first event, c=1"
    found.append(_difference(rows, "sage", "ttft_ms_p50", "stream, 0 ms, c=1", ttft, 1.0, 0.4))
    memory = [v for v in rows.column("sage", "1000 streams", "rss_mib_peak") if v is not None]
    metric = "memory at 1,000 open streams"
    found.append(_headline(metric, memory, "MiB", 250.0, 250.0, better="lower"))
    return [one for one in found if one is not None]


def _difference(
    rows: Rows, side: str, figure: str, arm: str, metric: str, floor: float, moonshot: float
) -> Headline | None:
    values = _pair(
        rows.column(side, arm, figure), rows.column("direct", arm, figure), lambda a, b: a - b
    )
    return _headline(metric, values, "ms", floor, moonshot, better="lower")


def _over(
    rows: Rows, side: str, peer: str, named: str, floor: float, moonshot: float
) -> Headline | None:
    values = _pair(rows.peak(side), rows.peak(peer), lambda a, b: a / b)
    metric = f"most requests/s over {peer}'s{named}"
    return _headline(metric, values, "ratio", floor, moonshot)


def _half(rows: Rows, side: str, named: str) -> Headline | None:
    ours = rows.column(side, "half load", "p99_ms")
    direct = rows.column(side, "half load, direct", "p99_ms")
    metric = f"added p99 at half load{named}"
    return _headline(
        metric, _pair(ours, direct, lambda a, b: a - b), "ms", 5.0, 5.0, better="lower"
    )


def _pair(
    ours: list[float | None],
    others: list[float | None],
    combine: Callable[[float, float], float],
) -> list[float]:
    """``combine`` of our and the other figure, for the repeats in which both exist.

    >>> _pair([3.0, None], [1.0, 1.0], lambda a, b: a - b)
    [2.0]
    """
    pairs = zip(ours, others, strict=False)
    return [combine(a, b) for a, b in pairs if a is not None and b]


def _headline(
    metric: str,
    values: list[float],
    unit: str,
    floor: float,
    moonshot: float,
    better: str = "higher",
) -> Headline | None:
    if not values:
        return None
    return Headline.of(metric, values, unit=unit, floor=floor, moonshot=moonshot, better=better)
