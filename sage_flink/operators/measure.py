"""Telemetry: a point of a time series built from a record, the same point on every replay.

A point is identified by measurement, tags and time. Many records can share a millisecond, so the
digits below it and a ``shard`` tag of 256 values come from the record's id: two records of the
same millisecond share a point once in 256 million.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, ClassVar

from sage_flink.common.errors import Rejected
from sage_flink.common.records import Record
from sage_flink.common.validation import require, require_name
from sage_flink.common.values import require_field
from sage_flink.flow.ports import NativeOperator
from sage_flink.tsdb.time_series_store import TIME_MAX_NS, TIME_MIN_NS


@dataclass(frozen=True, slots=True)
class Measure:
    """``value[field]`` of each of ``fields`` as one point of ``measurement``.

    A text counts as its length in characters, a tag that is None is left out. A delete makes no
    point and ends here.
    """

    supports_deletes: ClassVar[bool] = True

    measurement: str
    fields: tuple[str, ...]
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_name("measure", "measurement", self.measurement)
        require(bool(self.fields), "measure", "fields", "one name or more", self.fields)
        for name in ("fields", "tags"):
            held = getattr(self, name)
            known = isinstance(held, tuple) and all(isinstance(n, str) and n for n in held)
            require(known, "measure", name, "a tuple of names such as ('tokens',)", held)

    @property
    def native(self) -> NativeOperator | None:
        """The JVM's operator, which makes no point with a name twice."""
        columns = ("shard", *self.tags)
        if len({*columns}) < len(columns) or len({*self.fields}) < len(self.fields):
            return None
        shown = [repr(name) for name in (*self.tags, *self.fields)]
        arguments = (self.measurement, list(self.fields), list(self.tags), shown)
        return NativeOperator("flat_map", "fields.MeasureOperator", arguments)

    def __call__(self, record: Record) -> Iterable[dict[str, Any]]:
        """The point.

        Raises:
            Rejected: a field or tag is missing, a field is neither number nor text, or the time is
                one that a point cannot have.
        """
        if record.kind == "delete":
            return
        digest = blake2b(record.id.encode(), digest_size=8).digest()
        below_ms = int.from_bytes(digest[1:], "big") % 1_000_000
        time_ns = record.timestamp_ms * 1_000_000 + below_ms
        if not TIME_MIN_NS <= time_ns <= TIME_MAX_NS:
            why = "is not between the years 1677 and 2262, as the time of a point must be"
            raise Rejected(f"timestamp_ms {record.timestamp_ms} {why}")
        yield {
            "measurement": self.measurement,
            "tags": {
                "shard": f"{digest[0]:02x}",
                **{name: require_field(record, name, object) for name in self.tags},
            },
            "fields": {name: _number(record, name) for name in self.fields},
            "timestamp_ns": time_ns,
        }


def measure(measurement: str, *, fields: tuple[str, ...], tags: tuple[str, ...] = ()) -> Measure:
    """A step function that makes one point of each record; tags should have few values.

    Raises:
        PipelineError: no measurement or no fields, or their names are not in a tuple.
    """
    return Measure(measurement, fields, tags)


def _number(record: Record, name: str) -> int | float:
    got = require_field(record, name, object)
    if isinstance(got, str | bytes):
        return len(got)
    if not isinstance(got, int | float):
        raise Rejected(f"field {name!r} must be a number or text, got {type(got).__name__}")
    return got
