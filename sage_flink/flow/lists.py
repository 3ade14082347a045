"""A source and a sink in memory: for tests, notebooks, and the gateway's request path."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from sage_flink.common.records import Record
from sage_flink.flow.ports import BatchLimits, Refusal


@dataclass(frozen=True, slots=True)
class ListSource:
    """A source that yields the records of a tuple, in their order.

    With a ``format`` the rows are messages, as those of a topic, and are decoded by it.
    """

    rows: tuple[Record, ...]
    format: Any = None

    @property
    def emits_deletes(self) -> bool:
        """Whether one of the records is a delete."""
        return any(record.kind == "delete" for record in self.rows)

    @property
    def messages(self) -> "ListSource":
        """The rows themselves."""
        return replace(self, format=None)

    def records(self) -> Iterable[Record]:
        """The records, in the order of ``rows``."""
        return self.rows


@dataclass(frozen=True, slots=True)
class ListSink:
    """A sink that keeps what is written, newest per id: ``rows`` maps id to record.

    It keeps a delete as it keeps an upsert, and deletes no row for it.
    """

    supports_deletes: ClassVar[bool] = True

    rows: dict[str, Record] = field(default_factory=dict, compare=False)
    batch: BatchLimits = field(default_factory=BatchLimits)

    def writer(self) -> "ListSink":
        """This sink itself: there is no client to open."""
        return self

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        """Keep all records."""
        self.rows.update((record.id, record) for record in records)
        return ()

    def close(self) -> None:
        """Has no effect: there is no client to close."""
