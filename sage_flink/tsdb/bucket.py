"""A bucket of a time-series store as a value: a sink, and how a record becomes a point.

The store behind it is found by name: an entry point of the group ``sage.tsdb`` that takes the
Bucket and returns an open TimeSeriesStore.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sage_flink.common.adapters import adapter
from sage_flink.common.connections import InfluxdbConnection
from sage_flink.common.connections_file import connection_to, named_connection, one_address
from sage_flink.common.errors import ConfigError, Rejected, StoreUnavailable
from sage_flink.common.records import Record
from sage_flink.common.validation import require
from sage_flink.common.value_encoding import short_repr
from sage_flink.flow.ports import BatchLimits, Refusal
from sage_flink.tsdb.time_series_store import Point, TimeSeriesStore

LOG = logging.getLogger("sage.tsdb")
GROUP = "sage.tsdb"
#: The stores that come with sage, for a checkout that is on the path but not installed.
SHIPPED = {
    "influxdb": "sage_connectors.influxdb:InfluxStore",
    "memory": "sage_flink.tsdb.memory:MemoryTimeSeriesStore",
}


@dataclass(frozen=True, slots=True)
class Bucket:
    """Points in ``store``, reached by a ``connection`` by its name, or at ``url`` of ``org``.

    Where all three are empty, they are the settings'.

    A sink: a record's value is a mapping with ``measurement``, ``fields`` and maybe ``tags`` and
    ``timestamp_ns``; without the last the record's own time counts, never the wall clock. A tag
    that is None is no tag; one that is not text is its JSON, such as ``true`` or ``["a",1]``.

    A field has one type in a store, and JSON writes 20 where it means 20.0: numbers are written as
    floats. As whole numbers are written the fields in ``integers`` and those that the bucket has as
    whole numbers already; a number with a fraction is refused there.
    """

    name: str
    store: str = "influxdb"
    url: str = ""
    org: str = ""
    batch: BatchLimits = field(default_factory=BatchLimits)
    integers: tuple[str, ...] = ()
    connection: str = ""
    #: What the name stood for where the spec was made: a worker cannot look it up.
    definition: InfluxdbConnection | None = field(
        default=None, init=False, compare=False, repr=False
    )

    def __post_init__(self) -> None:
        text = isinstance(self.name, str) and bool(self.name.strip())
        named = text and not self.name.startswith("_") and '"' not in self.name
        rule = "text without quotes and without _ first"
        where = f"bucket {self.name!r}"
        require(named, where, "name", rule, self.name, ConfigError)
        known = isinstance(self.integers, tuple) and all(isinstance(n, str) for n in self.integers)
        rule = "a tuple of names such as ('count',)"
        require(known, where, "integers", rule, self.integers, ConfigError)
        one_address(where, self.connection, "url", self.url)
        if self.connection:
            rule = "'influxdb' with a connection"
            require(self.store == "influxdb", where, "store", rule, self.store, ConfigError)
            found = named_connection(self.connection, InfluxdbConnection)
            object.__setattr__(self, "definition", found)

    @property
    def server(self) -> InfluxdbConnection:
        """The connection that is named, else the one to ``url``, else the settings'."""
        return self.definition or connection_to(self.url, InfluxdbConnection)

    def open(self, *, create: bool = True) -> TimeSeriesStore:
        """The store, connected; with ``create`` an absent bucket is made, with no retention limit.

        Raises:
            NotFound: there is no such bucket, and ``create`` is false.
            ConfigError: no store of that name, its package or key is missing, or the key is wrong.
            StoreUnavailable: the server is away.
        """
        opened: TimeSeriesStore = adapter(GROUP, self.store, SHIPPED)(self, create)
        return opened

    def prepare(self) -> None:
        """Open the bucket when a job that writes into it is submitted, if the store answers.

        A store that does not answer does not keep the job from starting: the job waits for it.

        Raises:
            ConfigError: as :meth:`open`.
        """
        try:
            self.open().close()
        except StoreUnavailable as error:
            LOG.warning("bucket %r is not opened before the start: %s", self.name, error)

    def writer(self) -> "PointWriter":
        """Open the bucket for writing; raises as :meth:`open` does."""
        return PointWriter(self.open(), self.integers)


def bucket(
    name: str,
    *,
    store: str = "influxdb",
    url: str = "",
    org: str = "",
    batch: BatchLimits | None = None,
    integers: Sequence[str] = (),
    connection: str = "",
) -> Bucket:
    """The bucket ``name``; its fields ``integers`` are whole numbers.

    >>> bucket("ops").store
    'influxdb'
    """
    whole = integers if isinstance(integers, str) else tuple(integers)  # a text is refused
    limits = batch or BatchLimits()
    return Bucket(name, store, url, org, limits, whole, connection)  # type: ignore[arg-type]


class PointWriter:
    """Records into a time-series store: one point per series and time, however often written."""

    def __init__(self, store: TimeSeriesStore, integers: Sequence[str] = ()) -> None:
        self.store, self.integers = store, frozenset(integers)
        self.integer_fields = {
            measurement: self.integers | {name for name, kind in types.items() if kind is int}
            for measurement, types in store.field_types().items()
        }

    def write(self, records: Sequence[Record]) -> Sequence[Refusal]:
        """Append the records; those that are no point, or refused by the store, come back.

        Raises:
            StoreUnavailable: no point is known to be stored; the same call may succeed later.
        """
        points: list[Point] = []
        owners: list[Record] = []
        refused: list[Refusal] = []
        for record in records:
            try:
                points.append(self._with_field_types(point_of(record)))
                owners.append(record)
            except Rejected as verdict:
                refused.append(Refusal(record, str(verdict)))
        if points:
            found = self.store.append(points)
            refused += [Refusal(owners[position], reason) for position, reason in found]
        return refused

    def close(self) -> None:
        """Close the store; no write is pending."""
        self.store.close()

    def _with_field_types(self, point: Point) -> Point:
        """The point with each number as what its field holds.

        Raises:
            Rejected: a number would change.
        """
        whole = self.integer_fields.get(point.measurement, self.integers)
        changed = {
            name: number
            for name, value in point.fields.items()
            if (number := _number(name, value, name in whole)) is not value
        }
        return replace(point, fields=point.fields | changed) if changed else point


def point_of(record: Record) -> Point:
    """The point of a record.

    Raises:
        Rejected: its value is not of the form that Bucket asks for.
    """
    value = record.value
    if not isinstance(value, Mapping):
        got = type(value).__name__
        raise Rejected(f"value must be a mapping with 'measurement' and 'fields', got {got}")
    tags = {k: _tag(k, v) for k, v in _mapping(value, "tags", {}).items() if v is not None}
    timestamp_ns = value.get("timestamp_ns", record.timestamp_ms * 1_000_000)
    _require(isinstance(value.get("measurement"), str), "measurement", "text", value)
    whole = isinstance(timestamp_ns, int) and not isinstance(timestamp_ns, bool)
    _require(whole, "timestamp_ns", "an integer", value)
    return Point(value["measurement"], tags, _mapping(value, "fields", None), timestamp_ns)


def _tag(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return json.dumps(
            value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise Rejected(f"tag {name!r} must be text or JSON: {error}"[:300]) from error


def _number(name: str, value: Any, is_whole: bool) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if is_whole:
        if not math.isfinite(value) or value != int(value):
            raise Rejected(f"field {name!r} holds whole numbers, got {short_repr(value)}")
        return int(value)
    try:
        widened = float(value)
    except OverflowError:
        widened = math.inf
    if isinstance(value, int) and (math.isinf(widened) or int(widened) != value):
        rule = "is a float and would lose digits; name it in the bucket's `integers`"
        raise Rejected(f"field {name!r} {rule}: {short_repr(value)}")
    return widened


def _mapping(value: Mapping[str, Any], key: str, default: Any) -> dict[str, Any]:
    found = value.get(key, default)
    named = isinstance(found, Mapping) and all(isinstance(name, str) for name in found)
    _require(named, key, "a mapping with names of text", value)
    return dict(found)


def _require(condition: bool, key: str, required: str, value: Mapping[str, Any]) -> None:
    if not condition:
        raise Rejected(f"value[{key!r}] must be {required}, got {value.get(key)!r}"[:300])
