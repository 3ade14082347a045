"""Aggregates of the records in a window, and what each of them is: one pure function.

On Flink they run in the JVM, on fields of the record's value, and fold record by record. A field is
named by its path (``order.total``); records where it is missing or null are left out, as in SQL.

>>> from sage_flink.common.records import Record
>>> prices = [Record(str(n), {"price": n}) for n in (3, 1, 2)]
>>> {a: aggregate(a, prices) for a in (Count(), Sum("price"), Quantile("price", 0.5))}
{Count(field=''): 3, Sum(field='price'): 6, Quantile(field='price', q=0.5): 2.0}
"""

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, assert_never

import msgspec

from sage_flink.common.records import Record
from sage_flink.common.validation import require, require_whole_number
from sage_flink.flow.stateful.fields import read_field, require_path
from sage_flink.flow.stateful.nearest import Nearest, nearest


@dataclass(frozen=True, slots=True)
class Count:
    """The number of records; with ``field`` of those that have it."""

    field: str = ""

    def __post_init__(self) -> None:
        require_path("Count", "field", self.field, may_be_empty=True)


@dataclass(frozen=True, slots=True)
class _OfField:
    field: str

    def __post_init__(self) -> None:
        require_path(type(self).__name__, "field", self.field)


class Sum(_OfField):
    """The sum; whole where all numbers are whole and it has 64 bits. None without a number."""

    __slots__ = ()


class Mean(_OfField):
    """The mean. None without a number."""

    __slots__ = ()


class Min(_OfField):
    """The smallest number. None without a number."""

    __slots__ = ()


class Max(_OfField):
    """The largest number. None without a number."""

    __slots__ = ()


class Stddev(_OfField):
    """The standard deviation of a sample, as in SQL and pandas. None below two numbers."""

    __slots__ = ()


class First(_OfField):
    """The value of the first record by event time; of equal times the one that arrived first."""

    __slots__ = ()


class Last(_OfField):
    """The value of the last record by event time; of equal times the one that arrived last."""

    __slots__ = ()


class CountDistinct(_OfField):
    """The number of different values, exact: the window keeps each of them once."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Quantile:
    """The quantile ``q`` from 0 to 1, linear between the two nearest numbers, as in pandas.

    Exact: the window keeps all numbers. None without a number.
    """

    field: str
    q: float = 0.5

    def __post_init__(self) -> None:
        require_path("Quantile", "field", self.field)
        number = isinstance(self.q, int | float) and not isinstance(self.q, bool)
        require(number and 0 <= self.q <= 1, "Quantile", "q", "a number from 0 to 1", self.q)


@dataclass(frozen=True, slots=True)
class Top:
    """The ``k`` most frequent values: a list of ``{"value": ..., "count": ...}``."""

    field: str
    k: int = 10

    def __post_init__(self) -> None:
        require_path("Top", "field", self.field)
        require_whole_number("Top", "k", self.k)


@dataclass(frozen=True, slots=True)
class Collect:
    """A list of the values, or of one field of them, by event time and arrival.

    The first ``items_max`` that arrive are kept; where there are more, a second result
    ``<name>_omitted`` counts the others.
    """

    field: str = ""
    items_max: int = 1_000

    def __post_init__(self) -> None:
        require_path("Collect", "field", self.field, may_be_empty=True)
        require_whole_number("Collect", "items_max", self.items_max)


Aggregate = (
    Count
    | Sum
    | Mean
    | Min
    | Max
    | Stddev
    | First
    | Last
    | CountDistinct
    | Quantile
    | Top
    | Collect
    | Nearest
)
#: Those whose field must be a finite number.
OF_NUMBERS = (Sum, Mean, Min, Max, Stddev, Quantile)
_KINDS: dict[type, str] = {CountDistinct: "count_distinct"}


def in_json(name: str, spec: Aggregate) -> dict[str, Any]:
    """The aggregate as the native operator reads it."""
    kind = _KINDS.get(type(spec), type(spec).__name__.lower())
    return {"name": name, "kind": kind, **asdict(spec)}


def is_finite_number(value: object) -> bool:
    """Whether the value is a number that aggregates of numbers take."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value)


def aggregate(spec: Aggregate, records: Sequence[Record]) -> Any:
    """The result of ``spec`` over ``records``, which are in the order of their arrival."""
    if spec == Count():
        return len(records)
    if isinstance(spec, Nearest):
        return nearest(spec, records)
    found = [(r.timestamp_ms, read_field(r.value, spec.field)) for r in records]
    timed = [(time, value) for time, value in found if value is not None]
    values = [value for _, value in timed]
    match spec:
        case Count():
            return len(values)
        case CountDistinct():
            return len({_pack(value) for value in values})
        case Top(k=k):
            return _top(values, k)
        case Collect(items_max=items_max):
            kept = timed[:items_max]
            return [value for _, value in sorted(kept, key=lambda item: item[0])]
        case _ if not values:
            return None
        case First():
            return min(timed, key=lambda item: item[0])[1]
        case Last():
            return max(reversed(timed), key=lambda item: item[0])[1]
        case Sum() | Mean() | Min() | Max() | Stddev() | Quantile():
            return _of_numbers(spec, values)
        case _:
            assert_never(spec)


def count_omitted(spec: Aggregate, records: Sequence[Record]) -> int:
    """How many values the result of a Collect leaves out; 0 for any other aggregate."""
    if not isinstance(spec, Collect):
        return 0
    values = sum(read_field(record.value, spec.field) is not None for record in records)
    return max(0, values - spec.items_max)


def _of_numbers(
    spec: Sum | Mean | Min | Max | Stddev | Quantile, numbers: list[int | float]
) -> int | float | None:
    match spec:
        case Sum():
            whole = all(map(_is_whole, numbers))
            total = sum(numbers) if whole else math.fsum(numbers)
            return total if whole and _is_whole(total) else float(total)
        case Mean():
            return float(
                sum(numbers) if all(map(_is_whole, numbers)) else math.fsum(numbers)
            ) / len(numbers)
        case Min():
            return min(numbers)
        case Max():
            return max(numbers)
        case Stddev():
            return statistics.stdev(map(float, numbers)) if len(numbers) > 1 else None
        case Quantile(q=q):
            ordered = sorted(map(float, numbers))
            at = q * (len(ordered) - 1)
            low = ordered[int(at)]
            part = at - int(at)
            return low + part * (ordered[int(at) + 1] - low) if part else low
        case _:
            assert_never(spec)


def _is_whole(number: int | float) -> bool:
    return isinstance(number, int) and -(2**63) <= number < 2**63


def _top(values: Sequence[Any], k: int) -> list[dict[str, Any]]:
    counts = Counter(map(_pack, values))
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:k]
    return [{"value": msgspec.msgpack.decode(value), "count": count} for value, count in most]


def _pack(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)
