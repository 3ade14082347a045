"""The reference time-series store: a dict by identity, no server.

All stores of one bucket in this process share their points; they are lost when the process ends. A
field's type is fixed per measurement, which is what InfluxDB enforces within a shard.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sage_flink.tsdb.bucket import Bucket
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
    types: dict[tuple[str, str], type] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_TABLES: dict[str, _PointTable] = {}


class MemoryTimeSeriesStore:
    """The points of one bucket in this process."""

    def __init__(self, spec: Bucket) -> None:
        self.table = _TABLES.setdefault(spec.name, _PointTable())

    def append(self, points: Sequence[Point]) -> Sequence[RefusedPoint]:
        """Keep the points; fields of the same identity are merged, the newest counts."""
        refused = []
        with self.table.lock:
            for index, point in enumerate(points):
                if reason := flaw(point) or self._conflict(point):
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
        wanted = set((tags or {}).items())
        found = [
            Point(name, dict(series), dict(fields), time_ns)
            for (name, series, time_ns), fields in self.table.points.items()
            if name == measurement and wanted <= set(series) and start_ns <= time_ns < stop_ns
        ]
        return sorted(found, key=lambda point: (point.timestamp_ns, point.identity))[:points_max]

    def count(self, measurement: str, start_ns: int = TIME_MIN_NS) -> int:
        """How many points match."""
        return sum(m == measurement and t >= start_ns for m, _, t in self.table.points)

    def field_types(self) -> dict[str, dict[str, type]]:
        """The type of each field of each measurement."""
        types: dict[str, dict[str, type]] = {}
        with self.table.lock:
            for (measurement, name), kind in self.table.types.items():
                types.setdefault(measurement, {})[name] = kind
        return types

    def close(self) -> None:
        """The points stay for the next store of this bucket."""

    def _conflict(self, point: Point) -> str:
        kinds = {(point.measurement, name): type(value) for name, value in point.fields.items()}
        for key, kind in kinds.items():
            if (held := self.table.types.get(key, kind)) is not kind:
                return f"field {key[1]!r} is {kind.__name__}, already exists as {held.__name__}"
        self.table.types.update(kinds)
        return ""


def forget(name: str) -> None:
    """Drop the points of bucket ``name``, for stores opened from now on."""
    _TABLES.pop(name, None)
