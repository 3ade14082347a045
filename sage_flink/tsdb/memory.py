"""The reference time-series store: a dict by identity, no server.

All stores of one bucket in this process share their points; they are lost when the process ends.
"""

import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sage_flink.common.errors import NotFound
from sage_flink.tsdb.aggregates import Aggregate, Aggregation, Row, aggregate
from sage_flink.tsdb.bucket import Bucket
from sage_flink.tsdb.field_types import FieldTypes
from sage_flink.tsdb.time_series_store import (
    POINTS_MAX,
    TIME_MAX_NS,
    TIME_MIN_NS,
    Field,
    Point,
    RefusedPoint,
    flaw,
)

Identity = tuple[str, tuple[tuple[str, str], ...], int]


@dataclass(slots=True)
class _PointTable:
    points: dict[Identity, dict[str, Field]] = field(default_factory=dict)
    types: FieldTypes = field(default_factory=FieldTypes)
    lock: threading.Lock = field(default_factory=threading.Lock)


_TABLES: dict[str, _PointTable] = {}


class MemoryTimeSeriesStore:
    """The points of one bucket in this process."""

    def __init__(self, spec: Bucket, create: bool = True) -> None:
        if not create and spec.name not in _TABLES:
            raise NotFound(f"no bucket {spec.name!r} in this process")
        self.table = _TABLES.setdefault(spec.name, _PointTable())

    def append(self, points: Sequence[Point]) -> Sequence[RefusedPoint]:
        """Keep the points; fields of the same identity are merged, the newest counts."""
        refused = []
        with self.table.lock:
            for index, point in enumerate(points):
                if reason := flaw(point) or self.table.types.conflict(point):
                    refused.append(RefusedPoint(index, reason))
                else:
                    self.table.points.setdefault(point.identity, {}).update(point.fields)
        return refused

    def query(
        self,
        measurement: str,
        *,
        tags: Mapping[str, str] | None = None,
        start_ns: int = TIME_MIN_NS,
        stop_ns: int = TIME_MAX_NS,
        points_max: int = POINTS_MAX,
    ) -> list[Point]:
        """The points that match, by time."""
        wanted = {pair for pair in (tags or {}).items() if pair[1]}
        absent = {name for name, value in (tags or {}).items() if not value}
        found = [
            Point(name, dict(series), dict(fields), time_ns)
            for (name, series, time_ns), fields in self.table.points.items()
            if name == measurement
            and wanted <= set(series)
            and not absent & dict(series).keys()
            and start_ns <= time_ns < stop_ns
        ]
        return sorted(found, key=lambda point: (point.timestamp_ns, point.identity))[:points_max]

    def aggregate(
        self,
        measurement: str,
        field: str,
        wanted: Aggregation,
        *,
        tags: Mapping[str, str] | None = None,
        start_ns: int = TIME_MIN_NS,
        stop_ns: int = TIME_MAX_NS,
    ) -> list[Aggregate]:
        """The aggregates of the points that match."""
        wanted.check_type(self.table.types.of(measurement, field), f"field {field!r}")
        found = self.query(
            measurement, tags=tags, start_ns=start_ns, stop_ns=stop_ns, points_max=sys.maxsize
        )
        rows = (Row(p.timestamp_ns, p.tags, p.fields[field]) for p in found if field in p.fields)
        return aggregate(rows, wanted, start_ns)

    def count(self, measurement: str, start_ns: int = TIME_MIN_NS) -> int:
        """How many points match."""
        return sum(m == measurement and t >= start_ns for m, _, t in self.table.points)

    def field_types(self) -> dict[str, dict[str, type]]:
        """The type of each field of each measurement."""
        with self.table.lock:
            return self.table.types.by_measurement()

    def close(self) -> None:
        """The points stay for the next store of this bucket."""


def forget(name: str) -> None:
    """Drop the points of bucket ``name``, for stores opened from now on."""
    _TABLES.pop(name, None)
