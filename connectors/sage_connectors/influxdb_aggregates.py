"""Aggregates of InfluxDB as Flux, and what its answer means.

Counts, sums, extremes, the first and the last value are computed series by series, which the
storage engine does itself, and the groups' are put together here: 0.2 s for a million points in
windows, against 8 s where Flux groups the points first. Deviation and quantiles need all values of
a group at once. A window of Flux is cut at the edges of the range; its start is found again by
arithmetic. Flux has no session windows: :func:`needs_points` says for what the points are read.

Source: Flux standard library, ``window``, ``group`` and the aggregates; the "exact_mean" of
``quantile`` interpolates linearly between the two nearest values; ``difference`` with nonNegative
and initialZero has the new value where a counter began again, and null where that is below 0.
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sage_connectors.influxdb_answers import is_null, read_answer, typed_value
from sage_flink.tsdb.aggregates import Aggregate, Aggregation, Group
from sage_flink.tsdb.functions import (
    SERIES_FUNCTIONS,
    WHOLE_LIMIT,
    Value,
    difference,
    per_second,
    quantile_of,
    sum_of,
    total,
)
from sage_flink.tsdb.time_series_store import Field

#: Of what each function is put together, where it can be.
PARTS: Mapping[str, tuple[str, ...]] = {
    "count": ("count",),
    "sum": ("sum",),
    "mean": ("sum", "count"),
    "min": ("min",),
    "max": ("max",),
    "spread": ("min", "max"),
    "first": ("first",),
    "last": ("last",),
    "rate": ("first", "last", "increase"),
    "derivative": ("first", "last"),
}
INCREASE = "difference(nonNegative: true, initialZero: true) |> sum()"
#: Times as numbers: the server writes them as text otherwise.
START_NS = "map(fn: (r) => ({r with _start_ns: int(v: r._start)}))"
TIME_NS = "map(fn: (r) => ({r with _time_ns: int(v: r._time)}))"


class ServerRow(NamedTuple):
    """A row of the answer: of which part and windows, its series' tags, times and value."""

    result: str
    tags: Mapping[str, str]
    start_ns: int
    time_ns: int
    value: Field


def flux(source: str, wanted: Aggregation, by_literals: Sequence[str]) -> str:
    """The query: ``source`` yields the field's points, ``by_literals`` are the tags of ``by``.

    A result is called ``part@offset``. Each part is a query of its own: of points that two of them
    share the storage engine computes nothing. What needs all values shares the grouped ones.
    """
    lines = []
    parts = sorted({part for name in wanted.functions for part in PARTS.get(name, ())})
    whole = [name for name in wanted.functions if name not in PARTS]
    columns = list(by_literals)
    if wanted.every_ns is not None:
        columns += ['"_start"', '"_stop"']
    for offset_ns in wanted.offsets_ns:
        windowed = source
        if wanted.every_ns is not None:
            windowed += f" |> window(every: {wanted.length_ns}ns, offset: {offset_ns}ns)"
        if whole:
            grouped = f"{windowed} |> toFloat() |> group(columns: [{', '.join(columns)}])"
            lines.append(f"grouped{offset_ns} = {grouped}")
        for part in parts:
            time = [TIME_NS] if part in {"first", "last"} else []
            call = INCREASE if part == "increase" else f"{part}()"
            lines.append(_yield([windowed, call, *time], f"{part}@{offset_ns}", wanted))
        for name in whole:
            pipe = [f"grouped{offset_ns}", of_all(name)]
            lines.append(_yield(pipe, f"{name}@{offset_ns}", wanted))
    return "\n".join(lines)


def _yield(pipe: list[str], result: str, wanted: Aggregation) -> str:
    start = [START_NS] if wanted.every_ns is not None else []
    return " |> ".join([*pipe, *start, f'yield(name: "{result}")'])


def of_all(function: str) -> str:
    """The call of a function that needs all values of a group, as floats."""
    if function == "stddev":
        return 'stddev(mode: "sample")'
    fraction = quantile_of(function)
    share = 0.5 if fraction is None else fraction
    return f'quantile(q: {share:.9f}, method: "exact_mean")'


def server_rows(answer: bytes) -> Iterator[ServerRow]:
    """The rows of the answer; one with a null in place of a number is left out."""
    for row in read_answer(answer):
        plain, kinds, series = row
        if not is_null(row):
            start_ns, time_ns = (int(plain.get(name) or 0) for name in ("_start_ns", "_time_ns"))
            value = typed_value(plain["_value"], kinds["_value"])
            yield ServerRow(plain["result"], series, start_ns, time_ns, value)


def combine_series(
    rows: Iterable[ServerRow], wanted: Aggregation, range_start_ns: int
) -> list[Aggregate]:
    """The aggregates of the answer."""
    found: dict[Group, dict[str, list[ServerRow]]] = {}
    for row in rows:
        part, _, offset = row.result.partition("@")
        start_ns = range_start_ns
        if wanted.every_ns is not None:
            start_ns = wanted.start_of(row.start_ns, int(offset))
        group = wanted.group_of(row.tags, start_ns)
        found.setdefault(group, {}).setdefault(part, []).append(row)
    return [
        Aggregate(dict(tags), start_ns, {name: _whole(name, parts) for name in wanted.functions})
        for (tags, start_ns), parts in sorted(found.items(), key=operator.itemgetter(0))
    ]


def _whole(function: str, parts: Mapping[str, Sequence[ServerRow]]) -> Value:
    """The function of a group, of what its series have."""
    if function not in PARTS:
        (row,) = parts[function]
        return None if isinstance(row.value, float) and math.isnan(row.value) else row.value
    if function in SERIES_FUNCTIONS:
        return sum_of(_per_second(function, parts))
    if function == "mean":
        return _sum(parts["sum"]) / _sum(parts["count"])
    if function == "spread":
        return _value(max, parts["max"]) - _value(min, parts["min"])
    if function in {"count", "sum"}:
        return _sum(parts[function])
    if function in {"first", "last"}:
        choose = min if function == "first" else max
        return choose((row.time_ns, row.value) for row in parts[function])[1]
    return _value(min if function == "min" else max, parts[function])


def _per_second(function: str, parts: Mapping[str, Sequence[ServerRow]]) -> Iterator[float | None]:
    """The change per second of each series of a group."""
    last = {_series(row): row for row in parts["last"]}
    increases = {_series(row): row.value for row in parts.get("increase", ())}
    for first in parts["first"]:
        end = last[_series(first)]
        change = difference(first.value, end.value)
        if function == "rate":
            # Without a row there was no increase: one point, or points below 0.
            change = difference(0, increases.get(_series(first), 0))
        yield per_second(change, end.time_ns - first.time_ns)


def _series(row: ServerRow) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(row.tags.items()))


def _sum(found: Sequence[ServerRow]) -> float | int:
    return total(row.value for row in found)


def _value(choose: Callable[..., float | int], found: Sequence[ServerRow]) -> float | int:
    return choose(row.value for row in found if not isinstance(row.value, str))


def sums(wanted: Aggregation) -> bool:
    """Whether a sum is computed."""
    parts = {part for name in wanted.functions for part in PARTS.get(name, ())}
    return not parts.isdisjoint({"sum", "increase"})


def needs_points(wanted: Aggregation, *, overflows: bool) -> bool:
    """Whether the server cannot compute it: sessions, and changes of large whole numbers.

    As floats, which a sum of more than 64 bits needs, two large counters would not differ.
    """
    changes = not SERIES_FUNCTIONS.keys().isdisjoint(wanted.functions)
    return wanted.session_gap_ns is not None or (overflows and changes)


def may_overflow(bounds: Aggregate) -> bool:
    """Whether the sum of this many whole numbers between these may not fit 64 bits."""
    count, low, high = (bounds.values[name] for name in ("count", "min", "max"))
    whole = (value for value in (low, high) if isinstance(value, int))
    return isinstance(count, int) and count * max(map(abs, whole)) >= WHOLE_LIMIT
