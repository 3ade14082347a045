"""Alerts: scores of a key into the opening and the closing of an alert, each of them once.

>>> state, changes = None, []
>>> alerts = Alerts("score", open_above=5, close_below=3, for_points=2)
>>> for minute, score in enumerate([1, 6, 4, 7, 9, 4, 2, 1], start=1):
...     record = Record(f"t/0/{minute}", {"score": score}, minute * 60_000, b"pump")
...     state, made = alerts(state, record)
...     changes += [(r.value["state"], r.value["opened_at_ms"], r.value["peak"]) for r in made]
>>> changes
[('open', 300000, 9.0), ('close', 300000, 9.0)]
"""

from dataclasses import dataclass
from typing import Any, Literal

from sage_flink.common.records import Record, derived_id
from sage_flink.common.validation import require, require_name, require_whole_number
from sage_flink.common.values import require_field
from sage_flink.flow.stateful.fields import require_path
from sage_flink.flow.stateful.times import own_ms
from sage_flink.flow.stateful.windows import require_seconds
from sage_flink.operators.anomalies import number_in_order
from sage_flink.tsdb.series import finite_number

#: The fields of every alert.
OWN_FIELDS = (
    *("id", "name", "key", "state", "severity", "above_since_ms", "opened_at_ms", "closed_at_ms"),
    *("value", "peak", "points"),
)


@dataclass(frozen=True, slots=True)
class Alerts:
    """For ``fold``: the numbers at ``field`` of a key -> ``open`` and ``close`` records of alerts.

    An alert opens with the number that is the ``for_points``-th of an unbroken run above
    ``open_above`` and, with ``for_s``, as many seconds of event time behind the first of the run.
    It closes with the first number below ``close_below``; between the two limits an open alert
    stays open, and one that is not open breaks the run. With ``absolute`` the size of a number
    counts, not its sign. There is no record while nothing changes.

    The value of a record is ``{id, name, key, state, severity, above_since_ms, opened_at_ms,
    closed_at_ms, value, peak, points}`` and the fields in ``keep`` of the record that opened or
    closed the alert. ``closed_at_ms`` is None in ``open``. ``peak`` is the largest number since
    ``above_since_ms``, where the run began, and ``points`` how many there were. ``severity`` is
    ``critical`` where the peak is above ``critical_above``, else ``warning``; that of ``close`` is
    the worst. ``id`` depends on name, key and opening time, so both records of an alert have it,
    after any replay too; the ids of the records are ``id/open`` and ``id/close``.

    ``initial`` is None. The state of a key is six numbers. Two alerts of a key never open in the
    same millisecond: the second one waits for the next number. An alert of a key that sends nothing
    any more stays open; a ``ttl_s`` of the fold forgets it without a ``close``. What has no finite
    number or no event time, or is earlier than the last record of its key, is a dead letter.
    """

    field: str
    open_above: float
    close_below: float
    for_points: int = 1
    for_s: float = 0.0
    critical_above: float | None = None
    absolute: bool = False
    keep: tuple[str, ...] = ()
    name: str = "alert"

    def __post_init__(self) -> None:
        require_path("alerts", "field", self.field)
        require_name("alerts", "name", self.name)
        require("\x00" not in self.name, "alerts", "name", "without a zero byte", self.name)
        self._check_limits()
        require_whole_number("alerts", "for_points", self.for_points)
        require_seconds("alerts", "for_s", self.for_s, least_ms=0)
        is_flag = isinstance(self.absolute, bool)
        require(is_flag, "alerts", "absolute", "true or false", self.absolute)
        names = isinstance(self.keep, tuple) and all(isinstance(n, str) and n for n in self.keep)
        require(names, "alerts", "keep", "a tuple of names such as ('sensor',)", self.keep)
        own = sorted(set(OWN_FIELDS) & set(self.keep))
        require(not own, "alerts", "keep", "without the fields that an alert has", own)

    def _check_limits(self) -> None:
        opens, closes = finite_number(self.open_above), finite_number(self.close_below)
        require(opens is not None, "alerts", "open_above", "a number", self.open_above)
        assert opens is not None
        rule = "a number, at most open_above"
        known = closes is not None and closes <= opens
        require(known, "alerts", "close_below", rule, self.close_below)
        if self.critical_above is not None:
            worst = finite_number(self.critical_above)
            rule = "a number, open_above or more"
            known = worst is not None and worst >= opens
            require(known, "alerts", "critical_above", rule, self.critical_above)

    def __call__(self, state: Any, record: Record) -> tuple[Any, list[Record]]:
        """The new state of the key, and the record that opens or closes its alert, if one does.

        Raises:
            Rejected: there is no number at the field, no event time, no field of ``keep``, or the
                record is out of order.
        """
        time_ms = own_ms(record.timestamp_ms)
        run = _AlertRun(*(state or ()))
        value = number_in_order(record, self.field, run.last_ms)
        run.last_ms = time_ms
        level = abs(value) if self.absolute else value
        if run.opened_ms is None and level <= self.open_above:
            return _AlertRun(time_ms, run.before_ms).as_list, []
        run.add(time_ms, value, self.absolute)
        made = []
        if run.opened_ms is None:
            if self._is_due(run, time_ms):
                run.opened_ms = time_ms
                made.append(self._alert("open", run, record, value))
        elif level < self.close_below:
            made.append(self._alert("close", run, record, value))
            run = _AlertRun(time_ms, run.opened_ms)
        return run.as_list, made

    def _is_due(self, run: "_AlertRun", time_ms: int) -> bool:
        assert run.since_ms is not None
        is_long = run.points >= self.for_points and time_ms - run.since_ms >= self.for_s * 1000
        return is_long and time_ms != run.before_ms

    def _alert(
        self, state: Literal["open", "close"], run: "_AlertRun", record: Record, value: float
    ) -> Record:
        key = record.key or b""
        assert run.peak is not None
        worst = abs(run.peak) if self.absolute else run.peak
        is_critical = self.critical_above is not None and worst > self.critical_above
        # Latin-1 has one character for each byte, so that no two keys have one text.
        id_ = derived_id(key.decode("latin-1"), self.name, run.opened_ms or 0)
        values = (
            *(id_, self.name, _text(key), state, "critical" if is_critical else "warning"),
            *(run.since_ms, run.opened_ms, record.timestamp_ms if state == "close" else None),
            *(value, run.peak, run.points),
        )
        kept = {name: require_field(record, name, object) for name in self.keep}
        fields = {**dict(zip(OWN_FIELDS, values, strict=True)), **kept}
        return record.replace(id=f"{id_}/{state}", value=fields)


@dataclass(slots=True)
class _AlertRun:
    """The numbers of a key since the first one above the limit."""

    last_ms: int | None = None
    #: When the alert before this run opened: the id of an alert has its key and opening time.
    before_ms: int | None = None
    since_ms: int | None = None
    opened_ms: int | None = None
    points: int = 0
    peak: float | None = None

    @property
    def as_list(self) -> list[Any]:
        """The state, as MessagePack gives it back."""
        times = (self.last_ms, self.before_ms, self.since_ms, self.opened_ms)
        return [*times, self.points, self.peak]

    def add(self, time_ms: int, value: float, absolute: bool) -> None:
        """One more number."""
        self.since_ms = time_ms if self.since_ms is None else self.since_ms
        self.points += 1
        size = abs if absolute else float
        if self.peak is None or size(value) > size(self.peak):
            self.peak = value


def _text(key: bytes) -> str | bytes:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return key
