"""The types of a bucket's fields, as InfluxDB has them.

InfluxDB compares types within one shard, a week of points or so, and stores a text beside the
numbers of another week. A query then reads the field with the type of its first shard and leaves
the points of the others out. So each point is compared before it is written.
"""

import math
import time
from collections.abc import Callable, Mapping

from sage_flink.tsdb.field_types import FieldTypes
from sage_flink.tsdb.time_series_store import Point

#: Types that seem to have changed, after a deletion for instance, are read again this often.
RELOAD_S = 10.0


class ServerFieldTypes:
    """Types that ``load`` reads from the server, when a point needs them."""

    def __init__(self, load: Callable[[], Mapping[str, Mapping[str, type]]]) -> None:
        self._load = load
        self._types, self._loaded_s = FieldTypes(), -math.inf

    def conflict(self, point: Point) -> str:
        """Why the point does not fit what the bucket has; empty where it does.

        Raises:
            StoreUnavailable: the server does not answer.
        """
        if self._types.has_all(point) and not self._types.conflict(point):
            return ""
        if time.monotonic() - self._loaded_s > RELOAD_S:
            self._types, self._loaded_s = FieldTypes(self._load()), time.monotonic()
        return self._types.conflict(point)

    def forget(self) -> None:
        """Read all types again before the next point."""
        self._types, self._loaded_s = FieldTypes(), -math.inf
