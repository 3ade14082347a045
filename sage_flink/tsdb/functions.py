"""The functions of an aggregation: what each makes of the values of a window. Pure.

>>> compute("p50", [(0, 1), (1, 4)]), compute("last", [(0, 1), (1, 4)])
(2.5, 4)

Of several values at one time the smallest is the first and the largest the last. ``stddev`` is that
of a sample, and None of one value; quantiles, such as ``p99`` or ``p99.9``, are interpolated
linearly.

``rate`` and ``derivative`` are changes per second, series by series: a group has the sum of those
of its series, as Prometheus's ``sum by (host) (rate(...))`` has. They are taken between the first
and the last point that a series has in the window, and are not extrapolated to its edges as
Prometheus's are; without two points there is none. ``derivative`` is the difference of these two
values. ``rate`` is that of a counter and never negative: where the value falls the counter began
again at 0, so that the new value is the increase (Prometheus); one below 0 is no increase (Flux).

Source: Flux, aggregateWindow() and difference(nonNegative, initialZero); Prometheus, rate();
pandas, Series.quantile().
"""

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from sage_flink.tsdb.time_series_store import Field

Value = Field | None
#: A value of a series and its time in nanoseconds.
Timed = tuple[int, Field]
#: Functions of any value; all others are of numbers.
OF_ANY = frozenset({"count", "first", "last"})
WHOLE_LIMIT = 2**63
SECOND_NS = 1_000_000_000
_QUANTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,6})?)")


def is_known(function: str) -> bool:
    """Whether there is such a function."""
    return function in {*FUNCTIONS, *SERIES_FUNCTIONS} or quantile_of(function) is not None


def compute(function: str, found: Sequence[Timed]) -> Value:
    """A function of the values of a group; there is at least one."""
    if (quantile := quantile_of(function)) is not None:
        return _quantile(sorted(_numbers(found)), quantile)
    return FUNCTIONS[function](found)


def compute_by_series(function: str, series: Iterable[Sequence[Timed]]) -> float | None:
    """A function of SERIES_FUNCTIONS of a group, of the values that each series has.

    >>> compute_by_series("rate", [[(0, 5), (10**9, 7), (2 * 10**9, 3)], [(0, 1)]])
    2.5
    """
    return sum_of(SERIES_FUNCTIONS[function](sorted(found)) for found in series)


def quantile_of(function: str) -> float | None:
    """The fraction of a quantile's name.

    >>> quantile_of("p99.9"), quantile_of("mean")
    (0.999, None)
    """
    match = _QUANTILE.fullmatch(function)
    return round(float(match[1]) / 100, 9) if match else None


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
    except (OverflowError, ValueError):  # infinite, or infinite of both signs
        return float(sum(map(float, numbers)))  # as the server's


def sum_of(values: Iterable[float | None]) -> float | None:
    """The sum of those that are not None; None where all are."""
    known = [value for value in values if value is not None]
    return float(total(known)) if known else None


def per_second(change: float | int, duration_ns: int) -> float | None:
    """A change in this time, per second; None where no time passed.

    >>> per_second(2**60 + 1, 10**9) == 2.0**60, per_second(1, 0)
    (True, None)
    """
    if duration_ns <= 0:
        return None
    if isinstance(change, int):
        return change * SECOND_NS / duration_ns
    return change / (duration_ns / SECOND_NS)


def difference(before: Field, after: Field) -> float | int:
    """The difference of two numbers."""
    assert not isinstance(before, str)
    assert not isinstance(after, str)
    return after - before


def _rate(found: Sequence[Timed]) -> float | None:
    steps = (_increase(before, after) for (_, before), (_, after) in pairwise(found))
    return per_second(total(steps), _duration_ns(found))


def _increase(before: Field, after: Field) -> float | int:
    change = difference(before, after)
    return change if change >= 0 else max(difference(0, after), 0)


def _derivative(found: Sequence[Timed]) -> float | None:
    return per_second(difference(found[0][1], found[-1][1]), _duration_ns(found))


def _duration_ns(found: Sequence[Timed]) -> int:
    return found[-1][0] - found[0][0]


def _numbers(found: Iterable[Timed]) -> list[float]:
    return [float(value) for _, value in found]


def _sum(found: Sequence[Timed]) -> float | int:
    return total(map(_value, found))


def _stddev(found: Sequence[Timed]) -> float | None:
    return statistics.stdev(_numbers(found)) if len(found) > 1 else None


def _quantile(values: Sequence[float], fraction: float) -> float:
    place = (len(values) - 1) * fraction
    low = math.floor(place)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * (place - low)


def _value(pair: Timed) -> Field:
    return pair[1]


FUNCTIONS: Mapping[str, Callable[[Sequence[Timed]], Value]] = {
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
#: Functions of each series of a group, whose values come in order of time.
SERIES_FUNCTIONS: Mapping[str, Callable[[Sequence[Timed]], float | None]] = {
    "rate": _rate,
    "derivative": _derivative,
}
