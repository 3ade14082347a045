"""Time-series store: append points, query them by series and time range.

``bucket("ops")`` is a value: a sink for a pipeline, and ``.open()`` where it is used.
"""

from sage_flink.tsdb.bucket import Bucket, bucket
from sage_flink.tsdb.time_series_store import Field, Point, RefusedPoint, TimeSeriesStore

__all__ = ["Bucket", "Field", "Point", "RefusedPoint", "TimeSeriesStore", "bucket"]
