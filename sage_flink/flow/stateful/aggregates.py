"""Aggregates of the records in a window, and what each of them is: one pure function.

On Flink they run in the JVM, on fields of the record's value, and fold record by record. A field is
named by its path (``order.total``); records where it is missing or null are left out, as in SQL.

>>> from sage_flink.common.records import Record
>>> prices = [Record(str(n), {"price": n}) for n in (3, 1, 2)]
>>> {a: aggregate(a, prices) for a in (Count(), Sum("price"), Quantile("price", 0.5))}
{Count(field=''): 3, Sum(field='price'): 6, Quantile(field='price', q=0.5, approximate=False): 2.0}
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
from sage_flink.flow.stateful.sketches import (
    KLL_K,
    TOP_VALUES_MAX,
    sketched_count,
    sketched_quantile,
    sketched_top,
)


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


@dataclass(frozen=True, slots=True)
class CountDistinct:
    """The number of different values, exact: the window keeps each of them once.

    With ``approximate`` the window keeps an HLL sketch of about 2 KB. The result is within
    3.3 % of the exact one in 95 of 100 windows (the standard error is 1.63 %), and nearer where
    there are few values.
    """

    field: str
    approximate: bool = False

    def __post_init__(self) -> None:
        require_path("CountDistinct", "field", self.field)
        _require_boolean(self)


@dataclass(frozen=True, slots=True)
class Quantile:
    """The quantile ``q`` from 0 to 1, linear between the two nearest numbers, as in pandas.

    Exact: the window keeps all numbers. None without a number.

    With ``approximate`` a window of more than 800 numbers keeps a KLL sketch of about 20 KB. The
    result is one of the numbers, whose rank is within 0.35 % of ``q`` in 99 of 100 windows: the
    0.99 quantile is a number between those of 0.9865 and 0.9935. Those of 0 and 1 are exact. The
    sketch draws random bits, so the same records may make another such number after a restart.
    """

    field: str
    q: float = 0.5
    approximate: bool = False

    def __post_init__(self) -> None:
        require_path("Quantile", "field", self.field)
        _require_boolean(self)
        number = isinstance(self.q, int | float) and not isinstance(self.q, bool)
        require(number and 0 <= self.q <= 1, "Quantile", "q", "a number from 0 to 1", self.q)


@dataclass(frozen=True, slots=True)
class Top:
    """The ``k`` most frequent values: a list of ``{"value": ..., "count": ...}``.

    Exact: the window keeps each different value once. With ``approximate`` it keeps at most 768 of
    them, and is exact up to there. Beyond, a count is too high by at most 0.35 % of all values of
    the window, and a value that makes more than 0.35 % of them is never missing for a rarer one.
    """

    field: str
    k: int = 10
    approximate: bool = False

    def __post_init__(self) -> None:
        require_path("Top", "field", self.field)
        require_whole_number("Top", "k", self.k)
        _require_boolean(self)
        fits = not self.approximate or self.k <= TOP_VALUES_MAX
        require(fits, "Top", "k", f"at most {TOP_VALUES_MAX} where approximate", self.k)


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
    parameters = asdict(spec)
    # A kind of its own: the text of the exact ones is in savepoints.
    approximate = "approximate_" if parameters.pop("approximate", False) else ""
    return {"name": name, "kind": f"{approximate}{kind}", **parameters}


def _require_boolean(spec: CountDistinct | Quantile | Top) -> None:
    got = spec.approximate
    require(isinstance(got, bool), type(spec).__name__, "approximate", "true or false", got)


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
        case CountDistinct(approximate=True):
            return sketched_count(map(_pack, values))
        case CountDistinct():
            return len({_pack(value) for value in values})
        case Top(k=k):
            counts = sketched_top(map(_pack, values), k) if spec.approximate else _top(values, k)
            return [{"value": msgspec.msgpack.decode(value), "count": n} for value, n in counts]
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
        case Quantile(q=q, approximate=True) if len(numbers) > KLL_K:
            return sketched_quantile(numbers, q)
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


def _top(values: Sequence[Any], k: int) -> list[tuple[bytes, int]]:
    counts = Counter(map(_pack, values))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:k]


def _pack(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)
