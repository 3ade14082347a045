"""The protocol of a time-series store: append points, query and count them.

A point is identified by measurement, tags and timestamp. Writing one again overwrites the fields
it names and leaves its others, as InfluxDB does; a tag with an empty value is the same as no tag.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from sage_flink.tsdb.aggregates import Aggregate, Aggregation

Field = float | int | str | bool
#: What a query returns at most unless asked for less or more.
POINTS_MAX = 10_000
#: The earliest and the latest time of a point: 1677 to 2262.
TIME_MIN_NS, TIME_MAX_NS = -(2**63) + 2, 2**63 - 2
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: What InfluxDB's line protocol cannot say: a backslash before a character that it would escape.
_BACKSLASH = re.compile(r"\\[,= \\]|\\$")
_TEXT_BYTES_MAX = 65_000
#: A tag or name of so many characters may be kept in a cache of what is known of it.
SHORT_TEXT = 256


@dataclass(frozen=True, slots=True)
class Point:
    """One observation; ``timestamp_ns`` counts nanoseconds since the epoch."""

    measurement: str
    tags: dict[str, str]
    fields: dict[str, Field]
    timestamp_ns: int

    @property
    def identity(self) -> tuple[str, tuple[tuple[str, str], ...], int]:
        """What makes it this point: measurement, tags in order of their names, timestamp."""
        tags = sorted((k, v) for k, v in self.tags.items() if v)
        return self.measurement, tuple(tags), self.timestamp_ns


class RefusedPoint(NamedTuple):
    """The index of a refused point in the sequence, and why."""

    position: int
    reason: str


class TimeSeriesStore(Protocol):
    """An open bucket. One thread at a time."""

    def append(self, points: Sequence[Point]) -> Sequence[RefusedPoint]:
        """Store the points, one per identity; return once stored.

        The points refused come back, all others are stored. A point is refused when :func:`flaw`
        finds one, or a field's type differs from what the measurement has.

        Raises:
            StoreUnavailable: no point is known to be stored; the same call may succeed later.
        """

    def query(
        self,
        measurement: str,
        *,
        tags: Mapping[str, str] | None = None,
        start_ns: int = TIME_MIN_NS,
        stop_ns: int = TIME_MAX_NS,
        points_max: int = POINTS_MAX,
    ) -> list[Point]:
        """The earliest points with these tags (and maybe more), start <= time < stop, by time.

        A tag whose value is empty must be absent.

        Raises:
            StoreUnavailable: no answer; the same call may succeed later.
        """

    def aggregate(
        self,
        measurement: str,
        field: str,
        wanted: "Aggregation",
        *,
        tags: Mapping[str, str] | None = None,
        start_ns: int = TIME_MIN_NS,
        stop_ns: int = TIME_MAX_NS,
    ) -> "list[Aggregate]":
        """Aggregates of a field of the points with these tags, start <= time < stop.

        Ordered by group, then by window; see :mod:`sage_flink.tsdb.aggregates` and, for what each
        function means, :mod:`sage_flink.tsdb.functions`. A window at the edge of the range has the
        points within the range only.

        Raises:
            Rejected: a function needs numbers, and the field has none; or the store would have to
                read more points than it can keep, as for sessions.
            StoreUnavailable: no answer; the same call may succeed later.
        """

    def count(self, measurement: str, start_ns: int = TIME_MIN_NS) -> int:
        """How many points there are from ``start_ns`` on; a point with many fields counts once."""

    def field_types(self) -> dict[str, dict[str, type]]:
        """The type of each field of each measurement that has points.

        A field that was written as whole numbers and as floats counts as float.

        Raises:
            StoreUnavailable: no answer; the same call may succeed later.
        """

    def close(self) -> None:
        """Close the client; no write is pending."""


def flaw(point: Point) -> str:
    """Why no store can hold the point; empty when one can. The same for every store. Pure."""
    if not point.fields:
        return "point has no fields"
    if not TIME_MIN_NS <= point.timestamp_ns <= TIME_MAX_NS:
        return f"timestamp_ns {point.timestamp_ns} is out of range"
    if reason := _name_flaw(point.measurement):
        return f"measurement: {reason}"
    for what, names in (("tag", point.tags), ("field", point.fields)):
        for name in names:
            if reason := _name_flaw(name):
                return f"{what} {name!r}: {reason}"
    for key, value in point.tags.items():
        if reason := _tag_flaw(value):
            return f"tag {key!r}: {reason}"
    for key, field in point.fields.items():
        if reason := _field_flaw(field):
            return f"field {key!r}: {reason}"
    return ""


def _name_flaw(name: str) -> str:
    if not name:
        return "the name is empty"
    if name[0] in "_#" or name == "time":
        return "names that start with _ or #, and 'time', are the store's own"
    return _tag_flaw(name)


def _tag_flaw(text: str) -> str:
    return _short_text_flaw(text) if len(text) <= SHORT_TEXT else _label_flaw(text)


@lru_cache(maxsize=4096)
def _short_text_flaw(text: str) -> str:
    return _label_flaw(text)


def _label_flaw(text: str) -> str:
    if _CONTROL.search(text):
        return "holds a control character"
    if _BACKSLASH.search(text):
        return "holds a backslash at its end or before a comma, space, = or backslash"
    return _text_flaw(text)


def _field_flaw(field: Field) -> str:
    match field:
        case float():
            return "" if math.isfinite(field) else f"must be finite, got {field}"
        case int():  # a bool too
            return "" if -(2**63) <= field < 2**63 else "does not fit 64 bits"
        case str() if "\x00" in field or "\r" in field:
            return "holds a NUL or a carriage return, which InfluxDB's answers lose"
        case str():
            return _text_flaw(field)
    return f"must be a number, text or bool, got {type(field).__name__}"


def _text_flaw(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return "" if size <= _TEXT_BYTES_MAX else f"has {size} bytes, at most {_TEXT_BYTES_MAX}"
