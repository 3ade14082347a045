"""One series of numbers, of what a query returns: the input of every analysis. Pure.

>>> from sage_flink.tsdb.aggregates import Aggregate
>>> series_of([Aggregate({}, 60, {"mean": 2.5}), Aggregate({}, 0, {"mean": 1})])
[(0, 1.0), (60, 2.5)]
>>> series_of([(0, 1), (60, None)])
Traceback (most recent call last):
sage_flink.common.errors.Rejected: analysis: the value at 60 must be a number, got NoneType; \
fill() adds what is missing
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from sage_flink.common.errors import Rejected
from sage_flink.tsdb.aggregates import Aggregate
from sage_flink.tsdb.time_series_store import Point

#: A time, in nanoseconds since the epoch where a store made it, and its value.
Pair = tuple[int, float]
#: What a store's ``query`` or ``aggregate`` returned, or pairs of time and value.
Result = Iterable[Point] | Iterable[Aggregate] | Iterable[tuple[int, float]]
#: The size of a number at most: its square, and sums of many, are finite.
NUMBER_MAX = 1e100


def series_of(found: Result, field: str = "") -> list[Pair]:
    """The values by time, as floats.

    ``field`` names the field of points, or the function of aggregates where there are several. The
    tags of points may differ: a query chose them.

    Raises:
        Rejected: a value is missing or no finite number, two have one time, as those of two series
            have, or aggregates are of several groups.
    """
    pairs: list[Pair] = []
    groups: set[tuple[tuple[str, str], ...]] = set()
    for item in found:
        if isinstance(item, Aggregate):
            groups.add(tuple(sorted(item.tags.items())))
        pairs.append(_pair(item, field))
    if len(groups) > 1:
        raise Rejected(f"analysis: {len(groups)} groups are not one series; take one at a time")
    pairs.sort(key=lambda pair: pair[0])
    for (time, _), (following, _) in pairwise(pairs):
        if time == following:
            raise Rejected(f"analysis: two values at {time}; query one series by its tags")
    return pairs


def require_even(where: str, series: Sequence[Pair]) -> int:
    """The time between two neighbours of the series, which has two values or more.

    Raises:
        Rejected: it is not the same everywhere.
    """
    step = series[1][0] - series[0][0]
    for (time, _), (following, _) in pairwise(series):
        if following - time != step:
            raise Rejected(
                f"{where}: needs even times: {following} is {following - time} after the value "
                f"before it, the second one {step}; aggregate in windows, and fill() the gaps"
            )
    return step


def finite_number(value: object) -> float | None:
    """The value as a float; None where it is no number, not finite or larger than 1e100.

    >>> finite_number(3), finite_number(float("nan")), finite_number(True), finite_number(10**400)
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -NUMBER_MAX <= value <= NUMBER_MAX else None


def number_flaw(value: object) -> str:
    """What :func:`finite_number` requires, and what it got.

    >>> number_flaw("3"), number_flaw(float("inf"))
    ('must be a number, got str', 'must be a finite number of at most 1e100, got inf')
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"must be a number, got {type(value).__name__}"
    got = value if isinstance(value, float) and not math.isfinite(value) else f"{value:.3g}"
    return f"must be a finite number of at most 1e100, got {got}"


def _pair(item: Point | Aggregate | tuple[int, float], field: str) -> Pair:
    match item:
        case Point(fields=fields, timestamp_ns=time):
            value: object = _value_at(fields, field, "field")
        case Aggregate(values=values, start_ns=time):
            value = _value_at(values, field, "function")
        case (int(time), value) if not isinstance(time, bool):
            pass
        case _:
            kind = type(item).__name__
            raise Rejected(f"analysis: needs points, aggregates or (time, value), got {kind}")
    number = finite_number(value)
    if number is None:
        hint = "; fill() adds what is missing" if value is None else ""
        raise Rejected(f"analysis: the value at {time} {number_flaw(value)}{hint}")
    return time, number


def _value_at(values: Mapping[str, object], name: str, what: str) -> object:
    if name:
        if name not in values:
            raise Rejected(f"analysis: no {what} {name!r:.100}; there are {', '.join(values)}")
        return values[name]
    if len(values) != 1:
        raise Rejected(f"analysis: name a {what}; there are {', '.join(values)}")
    return next(iter(values.values()))
