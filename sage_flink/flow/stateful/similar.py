"""Similarity of records by a vector in their value.

>>> from sage_flink.common.records import Record
>>> near = Similar(threshold=0.9, dim=2)
>>> near.flaw(Record("a", {"vector": [1.0]}))
"its field 'vector' must be a vector of 2 numbers, got 1"
"""

from dataclasses import dataclass

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.common.validation import require, require_whole_number
from sage_flink.flow.stateful.fields import read_field, require_path
from sage_flink.flow.vectors import ROUNDING, similarity, unit_vector


@dataclass(frozen=True, slots=True)
class Similar:
    """Records whose vectors have a cosine similarity of at least ``threshold``, exactly compared.

    The vector is ``field`` of the value: ``dim`` numbers, as float32 bytes, which embedding makes,
    or as a list. A record without one is a dead letter.
    """

    threshold: float
    dim: int
    field: str = "vector"

    def __post_init__(self) -> None:
        number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        fits = number and -1 <= self.threshold <= 1
        required = "a cosine similarity from -1 to 1, such as 0.9"
        require(fits, "similar", "threshold", required, self.threshold)
        require_whole_number("similar", "dim", self.dim)
        require_path("similar", "field", self.field)

    def unit_vector(self, record: Record) -> tuple[float, ...]:
        """The record's vector, with length 1.

        Raises:
            Rejected: it has none of ``dim`` numbers.
        """
        return vector_at(record, self.field, self.dim)

    def flaw(self, record: Record) -> str:
        """Why the record has no such vector; empty where it has one."""
        return vector_flaw(record, self.field, self.dim)

    def holds(self, one: tuple[float, ...], other: tuple[float, ...]) -> bool:
        """Whether two unit vectors are similar."""
        return similarity(one, other) >= self.threshold - ROUNDING


def vector_at(record: Record, field: str, dim: int) -> tuple[float, ...]:
    """The vector of ``dim`` numbers in ``field``, with length 1.

    Raises:
        Rejected: it is not there.
    """
    try:
        return unit_vector(read_field(record.value, field), dim)
    except Rejected as flaw:
        raise Rejected(f"its field {field!r} {flaw}") from flaw


def vector_flaw(record: Record, field: str, dim: int) -> str:
    """Why ``field`` is no vector of ``dim`` numbers; empty where it is one."""
    try:
        vector_at(record, field, dim)
    except Rejected as flaw:
        return str(flaw)
    return ""
