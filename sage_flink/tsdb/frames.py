"""Points and aggregates as an Arrow table or a pandas frame, with a type for each column.

The columns are ``time`` (nanoseconds, UTC; the start of a window), ``end`` where the aggregates
are those of sessions, one for each tag (text) and one for each field or function. Whole numbers
stay whole, all 64 bits of them, also where some are missing; what is missing is null. A field of
the name of a tag has the column ``NAME (field)``, a function ``NAME (aggregate)``.

pyarrow and pandas are imported when a table is made: the extra ``frames`` has them.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sage_flink.common.errors import ConfigError, Rejected
from sage_flink.tsdb.aggregates import Aggregate
from sage_flink.tsdb.time_series_store import Point

if TYPE_CHECKING:
    import pandas
    import pyarrow

#: The results of queries: of ``query``, or of ``aggregate``.
Results = Sequence[Point] | Sequence[Aggregate]


@dataclass(frozen=True, slots=True)
class Columns:
    """The values of each column; ``times`` are nanoseconds since the epoch."""

    times: dict[str, list[int]]
    tags: dict[str, list[str | None]]
    values: dict[str, list[Any]]

    @property
    def all(self) -> dict[str, list[Any]]:
        """All columns in their order."""
        return {**self.times, **self.tags, **self.values}


def to_arrow(found: Results) -> "pyarrow.Table":
    """The points or aggregates as rows, in their order.

    A column is int64, double, bool or string; one of whole numbers and floats is double.

    Raises:
        Rejected: a column has values of several types, or a time does not fit 64 bits.
        ConfigError: pyarrow is missing; the message names the extra.
    """
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    columns = columns_of(found)
    instant = pyarrow.timestamp("ns", tz="UTC")
    arrays = {n: _array(pyarrow, n, values, instant) for n, values in columns.times.items()}
    arrays |= {n: pyarrow.array(values, pyarrow.string()) for n, values in columns.tags.items()}
    arrays |= {n: _array(pyarrow, n, _numbers(v)) for n, v in columns.values.items()}
    return pyarrow.table(arrays)


def to_pandas(found: Results) -> "pandas.DataFrame":
    """The points or aggregates as rows, in their order.

    Whole numbers are Int64, truth values boolean and text string, which know missing values; floats
    are float64, in which NaN is missing, for no store keeps one.

    Raises:
        Rejected: as :func:`to_arrow`.
        ConfigError: pandas or pyarrow is missing; the message names the extra.
    """
    table = to_arrow(found)
    try:
        import pandas
        import pyarrow
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    types = {
        pyarrow.int64(): pandas.Int64Dtype(),
        pyarrow.bool_(): pandas.BooleanDtype(),
        pyarrow.string(): pandas.StringDtype(),
    }
    return table.to_pandas(types_mapper=types.get)


def columns_of(found: Results) -> Columns:
    """The columns of points or aggregates. Pure.

    >>> columns_of([Point("m", {"k": "a"}, {"v": 1}, 5), Point("m", {}, {"k": 2.5}, 6)]).all
    {'time': [5, 6], 'k': ['a', None], 'k (field)': [None, 2.5], 'v': [1, None]}
    """
    tags = _names(one.tags for one in found)
    times = {"time": [_time_ns(one) for one in found]}
    named = {name: [one.tags.get(name) or None for one in found] for name in tags}
    values: dict[str, list[Any]] = {}
    if any(isinstance(one, Aggregate) and one.end_ns is not None for one in found):
        ends = [one.end_ns for one in found if isinstance(one, Aggregate)]
        times[_free("end", tags, "aggregate")] = [end_ns or 0 for end_ns in ends]
    for one in found[:1]:
        kind = "field" if isinstance(one, Point) else "aggregate"
        names = _names(map(_values, found)) if kind == "field" else list(_values(one))
        for name in names:
            column = _free(name, {*tags, *values}, kind)
            values[column] = [_values(row).get(name) for row in found]
    return Columns(times, named, values)


def _time_ns(one: Point | Aggregate) -> int:
    return one.timestamp_ns if isinstance(one, Point) else one.start_ns


def _values(one: Point | Aggregate) -> Mapping[str, Any]:
    return one.fields if isinstance(one, Point) else one.values


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({name for mapping in mappings for name in mapping})


def _free(name: str, taken: Collection[str], kind: str) -> str:
    """A name that no other column has."""
    while name in taken:
        name += f" ({kind})"
    return name


def _numbers(values: list[Any]) -> list[Any]:
    """Floats where some are; a column of nulls is one of floats too."""
    if any(isinstance(value, float) for value in values):
        return [float(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in values]
    return values


def _array(pyarrow: Any, name: str, values: list[Any], kind: Any = None) -> Any:
    if kind is None and all(value is None for value in values):
        kind = pyarrow.float64()
    try:
        return pyarrow.array(values, kind)
    except pyarrow.ArrowException as error:
        raise Rejected(f"column {name!r} has values of several types: {error}") from error
    except OverflowError as error:
        raise Rejected(f"column {name!r} has a value of more than 64 bits") from error


def _missing(error: ModuleNotFoundError) -> ConfigError:
    return ConfigError(f"tables need {error.name}: pip install 'sage-flink[frames]'")
