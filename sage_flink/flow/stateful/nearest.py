"""The records of a window whose vectors are nearest to a query: one pure function.

>>> from sage_flink.common.records import Record
>>> seen = [Record(c, {"name": c, "vector": v}) for c, v in (("a", [1, 0]), ("b", [1, 1]))]
>>> nearest(Nearest("vector", query=(0, 1), k=1, value="name"), seen)
[{'value': 'b', 'similarity': 0.707107}]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from sage_flink.common.errors import PipelineError, Rejected
from sage_flink.common.records import Record
from sage_flink.common.validation import require, require_whole_number
from sage_flink.flow.stateful.fields import read_field, require_path
from sage_flink.flow.stateful.similar import vector_at, vector_flaw
from sage_flink.flow.vectors import similarity, unit_vector

#: Similarities are rounded to this many parts of one, and those that are then equal are in the
#: order of their values: so both targets have the same records in the same order.
_PARTS = 1_000_000


@dataclass(frozen=True)
class Nearest:
    """The ``k`` records whose vectors are nearest to ``query``: a continuous top-k of a stream.

    A list of ``{"value": ..., "similarity": ...}``, the nearest first: the cosine similarity,
    rounded to six digits, and the field ``value`` of the record, or its whole value. Equally near
    ones are in the order of their MessagePack. For several queries a window has several of these.

    The vector is ``field``: numbers as many as the query's, as float32 bytes or a list. A record
    with anything else there is a dead letter; one with nothing is left out. The window keeps the
    ``k`` nearest and no other record.
    """

    field: str
    query: tuple[float, ...]
    k: int = 10
    value: str = ""

    def __post_init__(self) -> None:
        require_path("Nearest", "field", self.field)
        require_path("Nearest", "value", self.value, may_be_empty=True)
        require_whole_number("Nearest", "k", self.k)
        required = "a tuple of numbers, such as those of an embedding"
        require(isinstance(self.query, tuple), "Nearest", "query", required, self.query)
        try:
            unit_vector(list(self.query))
        except Rejected as flaw:
            raise PipelineError(f"Nearest: query {flaw}, got {self.query!r:.100}") from flaw

    @cached_property
    def unit_query(self) -> tuple[float, ...]:
        """The query with length 1."""
        return unit_vector(list(self.query))

    def flaw(self, record: Record) -> str:
        """Why a window cannot take the record; empty where it can."""
        if read_field(record.value, self.field) is None:
            return ""
        return vector_flaw(record, self.field, len(self.query))


def nearest(spec: Nearest, records: Sequence[Record]) -> list[dict[str, Any]]:
    """The result of ``spec`` over ``records``."""
    found = []
    for record in records:
        if read_field(record.value, spec.field) is not None:
            vector = vector_at(record, spec.field, len(spec.query))
            parts = math.floor(similarity(vector, spec.unit_query) * _PARTS + 0.5)
            found.append((parts, msgspec.msgpack.encode(read_field(record.value, spec.value))))
    best = sorted(found, key=lambda item: (-item[0], item[1]))[: spec.k]
    return [
        {"value": msgspec.msgpack.decode(value), "similarity": parts / _PARTS}
        for parts, value in best
    ]
