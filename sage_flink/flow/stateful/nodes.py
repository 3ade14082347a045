"""The nodes of event time, keys, windows and state."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from sage_flink.common.validation import require
from sage_flink.flow.stateful.aggregates import Aggregate, Collect, Count
from sage_flink.flow.stateful.fields import require_path
from sage_flink.flow.stateful.times import Unit
from sage_flink.flow.stateful.windows import (
    CountTumbling,
    Early,
    Global,
    Session,
    Windows,
    require_seconds,
)
from sage_flink.flow.step_names import check_name

#: What every result of a window holds in addition to its aggregates.
WINDOW_FIELDS = ("key", "start_ms", "end_ms")
#: Windows that do not end with time.
UNTIMED = CountTumbling | Global
#: Why a late record is a dead letter.
LATE = (
    "is late: the watermark had passed the end of its windows; give event_time more out_of_order_s,"
    " or the window lateness_s, or read such records with .late(name)"
)


@dataclass(frozen=True, slots=True)
class EventTime:
    """Gives records their event time, and makes the watermarks of the stream.

    The time is the record's own, or that of ``field``: a number in ``unit`` since the epoch, or
    text in RFC 3339. A record may arrive ``out_of_order_s`` after a later one of its partition
    without being late. A partition without a record for ``idle_s`` does not hold back the others.
    A record without a time, or more than ``ahead_s`` ahead of the clock, is a dead letter.
    """

    name: str
    input: str
    out_of_order_s: float
    field: str = ""
    unit: Unit = "ms"
    idle_s: float = 60.0
    ahead_s: float = 86_400.0

    def __post_init__(self) -> None:
        check_name(self.name)
        step = f"step {self.name!r}"
        require_seconds(step, "out_of_order_s", self.out_of_order_s, 0)
        require_path(step, "field", self.field, may_be_empty=True)
        units = ("s", "ms", "us", "ns")
        require(self.unit in units, step, "unit", f"one of {', '.join(units)}", self.unit)
        require_seconds(step, "idle_s", self.idle_s)
        require_seconds(step, "ahead_s", self.ahead_s, 0)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class ProcessingTime:
    """Gives records the time of the clock at which they pass, and makes watermarks of that clock.

    Windows, joins and rate limits behind it work with that time, and no record is late. What they
    make depends on when the job runs: a record that is read again after a restart has another
    time, and may be in another window. Choose it where no record carries a time.

    On Flink the watermark follows the clock also without records, every 0.2 s; in process it
    follows the records, and the last windows end with the input. A clock that is set back does
    not move until it is where it was, also over a restart.
    """

    name: str
    input: str

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


#: Steps that make the watermarks of a stream.
TimeNode = EventTime | ProcessingTime


@dataclass(frozen=True, slots=True)
class KeyBy:
    """Makes ``field`` of the value the record's key, as Kafka keys are: bytes.

    A record whose field is not text, bytes, a whole number or a boolean is a dead letter.
    """

    name: str
    input: str
    field: str

    def __post_init__(self) -> None:
        check_name(self.name)
        require_path(f"step {self.name!r}", "field", self.field)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Window:
    """Aggregates of the records of each key and window, by event time.

    A window is emitted when the watermark passes its end: one record ``{key, start_ms, end_ms,
    <aggregate>: ...}`` with the id ``step/start_ms/key``. Records that arrive up to ``lateness_s``
    later update it, under the same id. Later ones are ``late``: dead letters, or dropped and
    counted, or the records of a Late step that reads from this one.

    With ``early`` a window emits before its end, too, and every result has a field ``early``: true
    until the watermark passes the end of the window. A store keeps the last result of an id; a
    step that acts on results, or adds them up, takes those that are not early.

    The results of CountTumbling windows have the field ``index`` too, from 0 for each key, and the
    id ``step/index/key``; that of a Global window is ``step/key``. Their ``start_ms`` and
    ``end_ms`` are those of their earliest record and behind their latest one.
    """

    name: str
    input: str
    windows: Windows
    aggregates: Mapping[str, Aggregate] = field(default_factory=lambda: {"count": Count()})
    lateness_s: float = 0.0
    late: Literal["dead_letter", "drop"] = "dead_letter"
    early: Early | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        step = f"step {self.name!r}"
        known = isinstance(self.windows, Windows)
        required = "Tumbling(...), Sliding(...), Session(...), CountTumbling(...) or Global()"
        require(known, step, "windows", required, self.windows)
        require_seconds(step, "lateness_s", self.lateness_s, 0)
        fixed = not (isinstance(self.windows, Session) and self.lateness_s)
        why = "0 for sessions: a late record would change their start, and so their id"
        require(fixed, step, "lateness_s", why, self.lateness_s)
        has_late = self.is_timed or not self.lateness_s
        require(has_late, step, "lateness_s", "0: no record is late", self.lateness_s)
        has_late = self.is_timed or self.late == "dead_letter"
        require(has_late, step, "late", "left out: no record is late", self.late)
        ways = ("dead_letter", "drop")
        require(self.late in ways, step, "late", " or ".join(map(repr, ways)), self.late)
        required = "Early(every_s=...) or Early(every_records=...)"
        require(isinstance(self.early, Early | None), step, "early", required, self.early)
        emits = self.early is not None or not isinstance(self.windows, Global)
        why = f"{required}: a global window does not end before its input"
        require(emits, step, "early", why, self.early)
        self._check_aggregates(step)

    def _check_aggregates(self, step: str) -> None:
        some = isinstance(self.aggregates, Mapping) and bool(self.aggregates)
        require(some, step, "aggregates", "a mapping such as {'n': Count()}", self.aggregates)
        taken = {*WINDOW_FIELDS, *(("early",) if self.early else ())}
        taken |= {"index"} if isinstance(self.windows, CountTumbling) else set()
        for name, spec in self.aggregates.items():
            named = isinstance(name, str) and bool(name) and name not in taken
            other = f"a name other than {', '.join(sorted(taken))}"
            require(named, step, "aggregates", other, name)
            required = "an aggregate such as Sum('price')"
            require(isinstance(spec, Aggregate), step, f"aggregates: {name}", required, spec)
            taken |= {name, f"{name}_omitted"} if isinstance(spec, Collect) else {name}

    @property
    def is_timed(self) -> bool:
        """Whether the windows end with time, so that a record may be late."""
        return not isinstance(self.windows, UNTIMED)

    @property
    def is_approximate(self) -> bool:
        """Whether an aggregate is a sketch."""
        return any(getattr(spec, "approximate", False) for spec in self.aggregates.values())

    @property
    def needs_event_time(self) -> bool:
        """Whether results depend on watermarks before the end of the input."""
        return self.is_timed or (self.early is not None and self.early.every_s is not None)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Late:
    """The late records of the step ``input``, a window of event time or a join, unchanged."""

    name: str
    input: str

    def __post_init__(self) -> None:
        check_name(self.name)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The window or the join."""
        return (self.input,)


@dataclass(frozen=True, slots=True)
class Deduplicate:
    """The first record of each id, or of each key, within ``within_s`` seconds of the clock."""

    name: str
    input: str
    within_s: float
    by: Literal["id", "key"] = "id"

    def __post_init__(self) -> None:
        check_name(self.name)
        step = f"step {self.name!r}"
        require_seconds(step, "within_s", self.within_s)
        require(self.by in ("id", "key"), step, "by", "'id' or 'key'", self.by)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The one step read from."""
        return (self.input,)
