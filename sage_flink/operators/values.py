"""Plain functions of a value as steps: the record keeps its id.

>>> from sage_flink.common import Record
>>> [r.value for r in map_(str.upper)(Record(id="a", value="x"))]
['X']
>>> list(filter_(bool)(Record(id="a", value="")))
[]
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from sage_flink.common.records import Record


@dataclass(frozen=True, slots=True)
class _Map:
    function: Callable[[Any], Any]

    def __call__(self, record: Record) -> Iterable[Record]:
        return (record.replace(value=self.function(record.value)),)


@dataclass(frozen=True, slots=True)
class _Filter:
    predicate: Callable[[Any], bool]

    def __call__(self, record: Record) -> Iterable[Record]:
        return (record,) if self.predicate(record.value) else ()


@dataclass(frozen=True, slots=True)
class DropDeletes:
    """The upserts; deletes end here. For a sink that keeps rows of deleted documents.

    >>> upsert = Record(id="a", value="x")
    >>> [len(DropDeletes()(record)) for record in (upsert, upsert.delete_of("a", id="a"))]
    [1, 0]
    """

    supports_deletes: ClassVar[bool] = True

    def __call__(self, record: Record) -> tuple[Record, ...]:
        """The record itself, unless it is a delete."""
        return () if record.kind == "delete" else (record,)


def map_(function: Callable[[Any], Any]) -> Callable[[Record], Iterable[Record]]:
    """A step function: each value through ``function``."""
    return _Map(function)


def filter_(predicate: Callable[[Any], bool]) -> Callable[[Record], Iterable[Record]]:
    """A step function: the records whose value fulfils ``predicate``."""
    return _Filter(predicate)
