"""Telemetry: a point of a time series made of a record, the same point on every replay.

A point is identified by measurement, tags and time. Many records can share a millisecond, so the
digits below it and a ``shard`` tag of 256 values come from the record's id: two records of the
same millisecond share a point once in 256 million.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from sage_flink.common.errors import PipelineError
from sage_flink.common.records import Record


@dataclass(frozen=True, slots=True)
class Measure:
    """``value[field]`` of each of ``fields`` as one point of ``measurement``.

    A text counts as its length in characters.
    """

    measurement: str
    fields: tuple[str, ...]
    tags: tuple[str, ...] = ()

    def __call__(self, record: Record) -> Iterable[dict[str, Any]]:
        """The point."""
        digest = blake2b(record.id.encode(), digest_size=8).digest()
        below_ms = int.from_bytes(digest[1:], "big") % 1_000_000
        yield {
            "measurement": self.measurement,
            "tags": {"shard": f"{digest[0]:02x}", **{t: str(record.value[t]) for t in self.tags}},
            "fields": {name: _number(record.value[name]) for name in self.fields},
            "timestamp_ns": record.timestamp_ms * 1_000_000 + below_ms,
        }


def measure(measurement: str, *, fields: tuple[str, ...], tags: tuple[str, ...] = ()) -> Measure:
    """A step function that makes one point of each record; tags should have few values.

    Raises:
        PipelineError: no measurement or no fields.
    """
    if not measurement or not fields:
        raise PipelineError("measure: needs a measurement and at least one field")
    return Measure(measurement, tuple(fields), tuple(tags))


def _number(value: Any) -> int | float | bool:
    return len(value) if isinstance(value, str | bytes) else value
