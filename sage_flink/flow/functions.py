"""Functions of a flat_map made from simpler ones: what the verbs of a stream put there."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sage_flink.common.errors import Rejected
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


@dataclass(slots=True)
class Folding:
    """The outputs that ``function`` makes of its state and a record; ``state`` is the new one then.

    >>> counting = Folding(lambda state, record: (state + 1, [record.value * state]), 2)
    >>> counting(Record(id="a", value="x")), counting.state
    (['xx'], 3)
    """

    function: Callable[[Any, Record], tuple[Any, Iterable[Any]]]
    state: Any = None

    def __call__(self, record: Record) -> Iterable[Any]:
        """The outputs."""
        made = self.function(self.state, record)
        if not isinstance(made, tuple) or len(made) != 2:
            kind = type(made).__name__
            raise Rejected(f"the function returned {kind}; return the new state and a list")
        self.state, outputs = made
        return outputs


def unwrap(function: Any) -> Any:
    """The author's function: that of a Map, Filter, Folding or KeyOf, or ``function`` itself."""
    while isinstance(function, Map | Filter | Folding | KeyOf):
        function = function.function
    return function
