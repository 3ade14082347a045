"""InfluxDB 2 as a time-series store: line protocol in, Flux out.

InfluxDB refuses a batch with one bad point as a whole, though it stores the others; writing points
again has no effect, so the batch is split until the bad point is alone. Times are read back as
integers, because the client library's datetimes lose the nanoseconds.

Source: InfluxDB v2 API reference, POST /api/v2/write and /api/v2/query.
"""

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import urllib3
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from sage_connectors.influxdb_aggregates import (
    TIME_NS,
    combine_series,
    flux,
    may_overflow,
    needs_points,
    server_rows,
    sums,
)
from sage_connectors.influxdb_answers import AnswerRow, read_answer, typed_value
from sage_connectors.influxdb_connection import meaning_of, message_of, open_client
from sage_connectors.influxdb_downsampling import DownsamplingTasks
from sage_connectors.influxdb_field_types import ServerFieldTypes
from sage_connectors.influxdb_flux import points_from, text
from sage_connectors.influxdb_retention import Retention
from sage_connectors.isolate import BatchRefused, isolate
from sage_connectors.line_protocol import line
from sage_flink.common.errors import ConfigError, NotFound, Rejected, StoreUnavailable
from sage_flink.common.settings import Settings
from sage_flink.tsdb.aggregates import Aggregate, Aggregation, Row, aggregate
from sage_flink.tsdb.bucket import Bucket
from sage_flink.tsdb.time_series_store import (
    POINTS_MAX,
    TIME_MAX_NS,
    TIME_MIN_NS,
    Point,
    RefusedPoint,
    flaw,
)

#: The server cannot store these whatever is tried: bad request, too large, unprocessable.
REFUSALS = frozenset({400, 413, 422})
#: An aggregate of ten million points in windows takes a minute, where it needs all values.
AGGREGATE_TIMEOUT_MS = 300_000
#: Points that are read where the server cannot aggregate them: about a KiB of memory for each.
AGGREGATE_POINTS_MAX = 2_000_000
_TYPES: dict[str, type] = {
    "float": float,
    "integer": int,
    "unsigned": int,
    "string": str,
    "boolean": bool,
}
T = TypeVar("T")


class InfluxStore:
    """One bucket of an InfluxDB server.

    The settings' key is sent to the settings' server only; any other one is called without a key.
    """

    def __init__(self, spec: Bucket, create: bool = True) -> None:
        self.bucket, self.server = spec.name, spec.server
        self.url = self.server.url
        self.org = spec.org or self.server.org or Settings.load().influxdb_org
        self.client = open_client(self.server, self.org)
        self.types = ServerFieldTypes(self.field_types)
        self._prepare(create)
        self.writes = self.client.write_api(write_options=SYNCHRONOUS)
        self.queries = self.client.query_api()
        self.analyses = open_client(self.server, self.org, AGGREGATE_TIMEOUT_MS)

    def append(self, points: Sequence[Point]) -> Sequence[RefusedPoint]:
        """Store the points; in InfluxDB's log when this returns."""
        flaws = {
            index: reason
            for index, p in enumerate(points)
            if (reason := flaw(p) or self.types.conflict(p))
        }
        lines = [(i, line(p)) for i, p in enumerate(points) if i not in flaws]
        refused = [(index, reason) for (index, _), reason in isolate(lines, self._write)]
        if refused:
            self.types.forget()  # among them those of points that are not stored
        return [RefusedPoint(*found) for found in (*flaws.items(), *refused)]

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
        if start_ns >= stop_ns:
            return []
        flux = (
            f"{self._from(measurement, start_ns, stop_ns, tags or {})}"
            f" |> limit(n: {int(points_max)})"
            " |> map(fn: (r) => ({r with _time_ns: int(v: r._time)}))"
        )
        merged: dict[Any, Point] = {}
        for row, kinds, series in self._rows(flux):
            time_ns = int(row["_time_ns"])
            point = Point(measurement, series, {}, time_ns)
            kept = merged.setdefault(point.identity, point)
            kept.fields[row["_field"]] = typed_value(row["_value"], kinds["_value"])
        return sorted(merged.values(), key=lambda p: (p.timestamp_ns, p.identity))[:points_max]

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
        """The aggregates of the points that match; the server computes all but sessions.

        Raises:
            Rejected: more than two million points would have to be read: for sessions, and for the
                rates of whole numbers whose sums may have more than 64 bits.
        """
        if start_ns >= stop_ns:
            return []
        kind = self.field_types().get(measurement, {}).get(field)
        wanted.check_type(kind, f"field {field!r}")
        points = self._from(measurement, start_ns, stop_ns, dict(tags or {}) | {"_field": field})
        summed = kind is int and sums(wanted) and wanted.session_gap_ns is None
        overflows = summed and self._may_overflow(points, wanted, start_ns)
        if needs_points(wanted, overflows=overflows):
            return aggregate(self._field_rows(points), wanted, start_ns)
        if overflows:
            points += " |> toFloat()"
        return self._aggregate(points, wanted, start_ns)

    def _aggregate(self, points: str, wanted: Aggregation, start_ns: int) -> list[Aggregate]:
        query = flux(points, wanted, list(map(text, wanted.by)))
        answer = self._call(lambda: self.analyses.query_api().query_raw(query))
        return combine_series(server_rows(answer.data), wanted, start_ns)

    def _field_rows(self, points: str) -> Iterator[Row]:
        """The points themselves, each with the tags of its series."""
        count = sum(
            int(one.values["count"] or 0)
            for one in self._aggregate(points, Aggregation(("count",)), 0)
        )
        if count > AGGREGATE_POINTS_MAX:
            raise Rejected(
                f"aggregate: {count} points would be read, at most {AGGREGATE_POINTS_MAX}; narrow "
                "the range or give tags"
            )
        answer = self._call(lambda: self.analyses.query_api().query_raw(f"{points} |> {TIME_NS}"))
        for plain, kinds, series in read_answer(answer.data):
            value = typed_value(plain["_value"], kinds["_value"])
            yield Row(int(plain["_time_ns"]), series, value)

    def _may_overflow(self, points: str, wanted: Aggregation, start_ns: int) -> bool:
        """Whether a sum of whole numbers may have more than 64 bits, which the server cuts off."""
        bounds = replace(wanted, functions=("count", "min", "max"))
        return any(may_overflow(one) for one in self._aggregate(points, bounds, start_ns))

    def count(self, measurement: str, start_ns: int = TIME_MIN_NS) -> int:
        """How many points match."""
        flux = (
            f"{self._from(measurement, start_ns, TIME_MAX_NS, {})}"
            ' |> drop(columns: ["_field", "_value"]) |> unique(column: "_time")'
            " |> map(fn: (r) => ({r with _one: 1}))"
            ' |> count(column: "_one") |> group() |> sum(column: "_one")'
        )
        return sum(int(row["_one"]) for row, _, _ in self._rows(flux))

    def field_types(self) -> dict[str, dict[str, type]]:
        """The type of each field of each measurement; Flux cannot say it, InfluxQL can."""
        asked = [("db", self.bucket), ("q", "SHOW FIELD KEYS")]
        answer = self._call(
            lambda: self.client.api_client.call_api(
                "/query",
                "GET",
                query_params=asked,
                header_params={"Accept": "application/csv"},
                _preload_content=False,
                _return_http_data_only=True,
            )
        )
        types: dict[str, dict[str, type]] = {}
        for row in csv.DictReader(io.StringIO(answer.data.decode(), newline="")):
            kind = _TYPES[row["fieldType"]]
            fields = types.setdefault(row["name"], {})
            fields[row["fieldKey"]] = (
                float if float in (fields.get(row["fieldKey"]), kind) else kind
            )
        return types

    @property
    def downsampling(self) -> DownsamplingTasks:
        """The tasks that aggregate this bucket into others."""
        return DownsamplingTasks(self.analyses, self.bucket, self.org, self._call)

    @property
    def retention(self) -> Retention:
        """For how long the bucket keeps points."""
        return Retention(self.client, self.bucket, self._call)

    def close(self) -> None:
        """Close the client; no write is pending."""
        self.writes.close()
        self.client.close()
        self.analyses.close()

    def drop(self, measurement: str) -> None:
        """Delete all points of ``measurement``. For tests and tools."""
        self.types.forget()
        self._call(
            lambda: self.client.delete_api().delete(
                "1677-09-22T00:00:00Z",
                "2262-04-11T00:00:00Z",
                f'_measurement="{measurement}"',
                bucket=self.bucket,
            )
        )

    def _prepare(self, create: bool) -> None:
        buckets = self.client.buckets_api()
        if self._call(lambda: buckets.find_bucket_by_name(self.bucket)) is not None:
            return
        if not create:
            raise NotFound(f"no bucket {self.bucket!r} in {self.org!r} at {self.url}")
        try:
            buckets.create_bucket(bucket_name=self.bucket, org=self.org)
        except ApiException as error:
            if error.status != 422:  # 422: another writer was first
                raise self._error(error) from error

    def _write(self, lines: Sequence[tuple[int, str]]) -> None:
        try:
            self.writes.write(self.bucket, self.org, "\n".join(text for _, text in lines))
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            if isinstance(error, ApiException) and error.status in REFUSALS:
                raise BatchRefused(message_of(error)) from error
            raise self._error(error) from error

    def _from(self, measurement: str, start_ns: int, stop_ns: int, tags: Mapping[str, str]) -> str:
        return points_from(self.bucket, measurement, int(start_ns), int(stop_ns), tags)

    def _rows(self, flux: str) -> Iterator[AnswerRow]:
        """Each row as text, the types of its columns, and its series' tags."""
        yield from read_answer(self._call(lambda: self.queries.query_raw(flux)).data)

    def _call(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except (ApiException, urllib3.exceptions.HTTPError) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> ConfigError | StoreUnavailable:
        return meaning_of(self.server, self.org, f", bucket {self.bucket!r}", error)
