"""Functions of a flat_map made from simpler ones: what ``Stream.map`` and ``.filter`` put there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sage_flink.common.records import Record, Refusal
from sage_flink.flow.stateful.keys import KeyOf


@dataclass(frozen=True, slots=True)
class Map:
    """One record out for each record in: the same id, with the value that ``function`` returns.

    A Record, or a Refusal, that ``function`` returns is taken as it is.

    >>> [r.value for r in Map(lambda record: record.value.upper())(Record(id="a", value="x"))]
    ['X']
    """

    function: Callable[[Record], Any]

    def __call__(self, record: Record) -> Iterable[Record | Refusal]:
        """The one record, or its refusal."""
        made = self.function(record)
        return (made if isinstance(made, Record | Refusal) else record.replace(value=made),)


@dataclass(frozen=True, slots=True)
class Filter:
    """The record itself where ``function`` returns a true value, otherwise no record.

    >>> list(Filter(lambda record: record.value)(Record(id="a", value="")))
    []
    """

    function: Callable[[Record], bool]

    def __call__(self, record: Record) -> Iterable[Record]:
        """The record, or an empty tuple."""
        return (record,) if self.function(record) else ()


def unwrap(function: Any) -> Any:
    """The author's function: that of a Map, Filter or KeyOf, or ``function`` itself."""
    while isinstance(function, Map | Filter | KeyOf):
        function = function.function
    return function
