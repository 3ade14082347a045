"""Aggregates of a series in windows, grouped by tags: what they mean, for every store. Pure.

>>> rows = [Row(t * 10, {"host": "a"}, float(t)) for t in range(4)]
>>> for found in aggregate(rows, Aggregation(("count", "mean"), every_ns=20)):
...     print(found.start_ns, found.values)
0 {'count': 2, 'mean': 0.5}
20 {'count': 2, 'mean': 2.5}

Windows begin at multiples of ``every_ns`` since the epoch, before 1970 too; one without points is
left out, and :func:`fill` adds it. Of several values at one time the smallest is the first and the
largest the last. ``stddev`` is that of a sample, and None of one value; quantiles, such as ``p99``
or ``p99.9``, are interpolated linearly.

Source: Flux, aggregateWindow(); pandas, resample() and Series.quantile().
"""

import math
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from sage_flink.common.errors import Rejected
from sage_flink.tsdb.time_series_store import Field

Value = Field | None
#: The tags of ``by`` that a group has, and the start of a window.
Group = tuple[tuple[tuple[str, str], ...], int]
Fill = Literal["none", "zero", "previous", "next", "linear"]
FILLS: tuple[Fill, ...] = ("none", "zero", "previous", "next", "linear")
#: Functions of any value; all others are of numbers.
OF_ANY = frozenset({"count", "first", "last"})
WINDOWS_MAX, OVERLAP_MAX = 1_000_000, 1_000
WHOLE_LIMIT = 2**63
_QUANTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,6})?)")


class Row(NamedTuple):
    """One value of a field."""

    time_ns: int
    tags: Mapping[str, str]
    value: Field


@dataclass(frozen=True, slots=True)
class Aggregation:
    """What is computed: ``functions`` of the values in each window of each group of ``by``.

    Without ``every_ns`` there is one window, the whole range. Windows overlap where ``period_ns``
    is a multiple of it.

    Raises:
        Rejected: there is no such function, or the period is no multiple.
    """

    functions: tuple[str, ...]
    every_ns: int | None = None
    period_ns: int | None = None
    by: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.functions:
            raise Rejected("aggregate: give a function or more, such as 'mean'")
        if len(set(self.functions)) < len(self.functions) or len(set(self.by)) < len(self.by):
            raise Rejected("aggregate: a function or a tag is given twice")
        if own := [name for name in self.by if not name or name.startswith("_")]:
            raise Rejected(f"aggregate: {own[0]!r:.100} is no tag")
        for name in self.functions:
            if name not in FUNCTIONS and quantile_of(name) is None:
                known = ", ".join(FUNCTIONS)
                raise Rejected(f"aggregate: no function {name!r:.100}; there are {known} and p99")
        if self.every_ns is not None and self.every_ns <= 0:
            raise Rejected(f"aggregate: every_ns must be positive, got {self.every_ns}")
        if self.period_ns is not None and (
            self.every_ns is None or self.period_ns <= 0 or self.period_ns % self.every_ns
        ):
            raise Rejected(
                f"aggregate: period_ns must be a multiple of every_ns {self.every_ns}, "
                f"got {self.period_ns}"
            )
        if len(self.offsets_ns) > OVERLAP_MAX:
            raise Rejected(f"aggregate: a time is in at most {OVERLAP_MAX} windows")

    @property
    def offsets_ns(self) -> Sequence[int]:
        """Where the first of the windows begin that do not overlap each other."""
        if self.every_ns is None or self.period_ns is None:
            return (0,)
        return range(0, self.period_ns, self.every_ns)

    @property
    def length_ns(self) -> int | None:
        """How long a window is."""
        return self.period_ns or self.every_ns

    def start_of(self, time_ns: int, offset_ns: int) -> int:
        """The start of the window of a time, among those that begin at the offset."""
        assert self.length_ns is not None
        return (time_ns - offset_ns) // self.length_ns * self.length_ns + offset_ns

    def group_of(self, tags: Mapping[str, str], start_ns: int) -> Group:
        """The group of a series, in a window; a tag that is absent is no part of it."""
        return tuple((name, tags[name]) for name in self.by if tags.get(name)), start_ns

    def check_type(self, kind: type | None, where: str) -> None:
        """Raise Rejected where a function needs numbers and the field has another type."""
        for name in self.functions:
            if kind in {str, bool} and name not in OF_ANY:
                raise Rejected(f"aggregate: {name} needs numbers; {where} is {kind.__name__}")


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The values of one window of one group: ``tags`` are those of ``by`` that the group has."""

    tags: dict[str, str]
    start_ns: int
    values: dict[str, Value]


def aggregate(rows: Iterable[Row], wanted: Aggregation, range_start_ns: int = 0) -> list[Aggregate]:
    """The aggregates, by group and window; one window of all rows begins at ``range_start_ns``."""
    groups: dict[Group, list[tuple[int, Field]]] = {}
    for row in rows:
        for offset_ns in wanted.offsets_ns:
            windowed = wanted.every_ns is not None
            start_ns = wanted.start_of(row.time_ns, offset_ns) if windowed else range_start_ns
            group = wanted.group_of(row.tags, start_ns)
            groups.setdefault(group, []).append((row.time_ns, row.value))
    return [
        Aggregate(dict(tags), start_ns, {name: compute(name, found) for name in wanted.functions})
        for (tags, start_ns), found in sorted(groups.items())
    ]


def compute(function: str, found: Sequence[tuple[int, Field]]) -> Value:
    """A function of values, each with its time; there is at least one."""
    if (quantile := quantile_of(function)) is not None:
        return _quantile(sorted(_numbers(found)), quantile)
    return FUNCTIONS[function](found)


def quantile_of(function: str) -> float | None:
    """The fraction of a quantile's name.

    >>> quantile_of("p99.9"), quantile_of("mean")
    (0.999, None)
    """
    match = _QUANTILE.fullmatch(function)
    return round(float(match[1]) / 100, 9) if match else None


def fill(
    found: Iterable[Aggregate], how: Fill, every_ns: int, start_ns: int, stop_ns: int
) -> list[Aggregate]:
    """The aggregates with the windows that are missing, group by group.

    The first window is the one that holds ``start_ns``, the last begins before ``stop_ns``.

    ``linear`` has no value before the first and after the last window of a group, ``previous``
    none before the first, ``next`` none after the last: those are None. ``none`` is None for all.

    Raises:
        Rejected: there would be more than a million windows.
    """
    first = start_ns // every_ns * every_ns
    windows = range(first, stop_ns, every_ns)
    groups: dict[tuple[tuple[str, str], ...], dict[int, Aggregate]] = {}
    for one in found:
        groups.setdefault(tuple(sorted(one.tags.items())), {})[one.start_ns] = one
    if -(-(stop_ns - first) // every_ns) * max(1, len(groups)) > WINDOWS_MAX:
        raise Rejected(f"aggregate: more than {WINDOWS_MAX} windows; narrow the range")
    return [one for group in groups.values() for one in _fill_group(group, how, windows)]


def _fill_group(group: Mapping[int, Aggregate], how: Fill, windows: range) -> Iterator[Aggregate]:
    example = next(iter(group.values()))
    known = sorted(group)
    at = 0
    for start_ns in windows:
        while at < len(known) and known[at] < start_ns:
            at += 1
        if start_ns in group:
            yield group[start_ns]
            continue
        before = group[known[at - 1]] if at else None
        after = group[known[at]] if at < len(known) else None
        values = {n: _between(how, n, start_ns, before, after) for n in example.values}
        yield replace(example, start_ns=start_ns, values=values)


def _between(
    how: Fill, name: str, start_ns: int, before: Aggregate | None, after: Aggregate | None
) -> Value:
    if how == "zero":
        return 0
    if how == "previous":
        return before.values[name] if before else None
    if how == "next":
        return after.values[name] if after else None
    if how == "none" or before is None or after is None:
        return None
    a, b = before.values[name], after.values[name]
    if isinstance(a, str | bool | None) or isinstance(b, str | bool | None):
        return None
    share = (start_ns - before.start_ns) / (after.start_ns - before.start_ns)
    return a + (b - a) * share


def _numbers(found: Iterable[tuple[int, Field]]) -> list[float]:
    return [float(value) for _, value in found]


def total(values: Iterable[Field]) -> float | int:
    """The sum of numbers: whole where all are and it fits 64 bits, else a float.

    >>> total([1, 2]), total([1, 2.5]), total([2**62, 2**62]) == 2.0**63
    (3, 3.5, True)
    """
    numbers = [value for value in values if not isinstance(value, str)]
    if all(isinstance(value, int) for value in numbers):
        whole = sum(numbers)
        return whole if abs(whole) < WHOLE_LIMIT else float(whole)
    try:
        return math.fsum(numbers)
    except OverflowError:
        return float(sum(map(float, numbers)))  # infinite, as the server's


def _sum(found: Sequence[tuple[int, Field]]) -> float | int:
    return total(map(_value, found))


def _stddev(found: Sequence[tuple[int, Field]]) -> float | None:
    return statistics.stdev(_numbers(found)) if len(found) > 1 else None


def _quantile(values: Sequence[float], fraction: float) -> float:
    place = (len(values) - 1) * fraction
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def _value(pair: tuple[int, Field]) -> Field:
    return pair[1]


FUNCTIONS: Mapping[str, Callable[[Sequence[tuple[int, Field]]], Value]] = {
    "count": len,
    "sum": _sum,
    "mean": lambda found: total(map(_value, found)) / len(found),
    "min": lambda found: min(map(_value, found)),
    "max": lambda found: max(map(_value, found)),
    "spread": lambda found: max(map(_value, found)) - min(map(_value, found)),  # type: ignore[operator]
    "first": lambda found: min(found)[1],
    "last": lambda found: max(found)[1],
    "stddev": _stddev,
    "median": lambda found: _quantile(sorted(_numbers(found)), 0.5),
}
