"""Time-series store: append points, query them by series and time range.

``bucket("ops")`` is a value: a sink for a pipeline, and ``.open()`` where it is used.
``Aggregation(("mean", "p99"), every_ns=60 * 10**9, by=("host",))`` says what a store aggregates.
``to_arrow`` and ``to_pandas`` make tables of the results, ``join_asof`` and
``join_windows`` one of two of them.
Functions of what a query returns: ``robust_z_scores``, ``seasonal_residuals``, ``change_points``,
``forecast``; all but the first need the extra ``analysis``.
"""

from sage_flink.tsdb.aggregates import Aggregate, Aggregation
from sage_flink.tsdb.anomalies import AnomalyScore, robust_z_score, robust_z_scores
from sage_flink.tsdb.bucket import Bucket, bucket
from sage_flink.tsdb.change_points import ChangePoint, change_points
from sage_flink.tsdb.fills import fill
from sage_flink.tsdb.forecasts import Forecast, forecast
from sage_flink.tsdb.frames import to_arrow, to_pandas
from sage_flink.tsdb.joins import join_asof, join_windows
from sage_flink.tsdb.seasons import SeasonalValue, seasonal_residuals
from sage_flink.tsdb.time_series_store import Field, Point, RefusedPoint, TimeSeriesStore

__all__ = [
    "Aggregate",
    "Aggregation",
    "AnomalyScore",
    "Bucket",
    "ChangePoint",
    "Field",
    "Forecast",
    "Point",
    "RefusedPoint",
    "SeasonalValue",
    "TimeSeriesStore",
    "bucket",
    "change_points",
    "fill",
    "forecast",
    "join_asof",
    "join_windows",
    "robust_z_score",
    "robust_z_scores",
    "seasonal_residuals",
    "to_arrow",
    "to_pandas",
]
