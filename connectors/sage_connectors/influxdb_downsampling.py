"""Continuous downsampling: tasks of InfluxDB that aggregate a bucket into another one.

A task runs at the end of each window. It writes a point for each group and window, whose time is
the start of the window, whose tags are those of ``by``, and which has a field for each function:
``ms_mean`` of ``ms``. A run computes the windows before it again, for late points;
writing a point again changes nothing.

The columns of a table stay those of one series, in their order: ``to`` writes the tags of a point
in the order of the columns, and the storage engine needs them sorted.

Source: InfluxDB v2 documentation, "Downsample data with InfluxDB" and API reference, /api/v2/tasks.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from influxdb_client import InfluxDBClient, TaskCreateRequest
from influxdb_client.domain.task import Task

from sage_connectors.influxdb_aggregates import PARTS, of_all
from sage_connectors.influxdb_flux import points_from, text
from sage_flink.common.errors import NotFound, Rejected
from sage_flink.tsdb.aggregates import Aggregation
from sage_flink.tsdb.functions import SECOND_NS, SERIES_FUNCTIONS
from sage_flink.tsdb.time_series_store import Field, Point, flaw

PAGE_TASKS = 100
#: Of several values at one time the smallest is the first, as for every store.
BY_TIME = 'sort(columns: ["_time", "_value"])'


@dataclass(frozen=True, slots=True)
class Downsampling:
    """The aggregates of a field of a measurement, written into the bucket ``target``.

    ``wanted.every_ns`` is how long a window is, and how often the task runs. Points that come up to
    ``late_ns`` after the end of their window are counted; by default that is a window's length.
    ``tags`` are those that the points must have, as for a query. Sums of whole numbers have 64
    bits.

    Raises:
        Rejected: the windows are not of whole seconds, they overlap or are sessions; a function is
            a rate or derivative, which are taken of the downsampled ``last``; or a name is one that
            no point can have.
    """

    name: str
    measurement: str
    field: str
    target: str
    wanted: Aggregation
    late_ns: int | None = None
    tags: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"downsampling {self.name!r:.100}"
        every_ns = self.wanted.every_ns
        if not self.name.strip() or not self.name.isprintable():
            raise Rejected(f"{where}: the name must be text on one line")
        if not every_ns or every_ns % SECOND_NS or self.wanted.period_ns:
            raise Rejected(f"{where}: give every_ns in whole seconds, and windows that are apart")
        if self.late_ns is not None and self.late_ns < 0:
            raise Rejected(f"{where}: late_ns must be 0 or more, got {self.late_ns}")
        if changes := sorted(SERIES_FUNCTIONS.keys() & set(self.wanted.functions)):
            raise Rejected(
                f"{where}: no task has a {changes[0]}; it is that of the field of 'last'"
            )
        fields: dict[str, Field] = {self.field_of(name): 0.0 for name in self.wanted.functions}
        if reason := flaw(Point(self.measurement, dict.fromkeys(self.wanted.by, "x"), fields, 0)):
            raise Rejected(f"{where}: {reason}")

    @property
    def every_ns(self) -> int:
        """How long a window is."""
        assert self.wanted.every_ns is not None
        return self.wanted.every_ns

    @property
    def description(self) -> str:
        """What the task does, in a line."""
        functions = ", ".join(self.wanted.functions)
        by = f", by {', '.join(self.wanted.by)}" if self.wanted.by else ""
        what = f"{functions} of {self.field} of {self.measurement}{by}"
        return f"{what}, every {self.every_ns // SECOND_NS} s, into {self.target}"

    def field_of(self, function: str) -> str:
        """The field of a function's values."""
        return f"{self.field}_{function}"


@dataclass(frozen=True, slots=True)
class TaskState:
    """A task as the server has it; ``last_error`` is that of the latest run, if it failed."""

    name: str
    description: str
    status: str
    last_run: str
    last_error: str


@dataclass(frozen=True, slots=True)
class DownsamplingTasks:
    """The tasks of one bucket; ``call`` runs a request and wraps its errors.

    Raises, each method:
        ConfigError: the key may not do that.
        StoreUnavailable: no answer; the same call may succeed later.
    """

    client: InfluxDBClient
    bucket: str
    org: str
    call: Callable[[Callable[[], Any]], Any]

    def put(self, one: Downsampling) -> bool:
        """Make the task run, in place of one of its name; whether that is a change.

        The bucket ``target`` is created if it is absent. Windows that ended before are left to
        :meth:`backfill`.
        """
        self._create_target(one.target)
        flux = self._task(one)
        named = self._tasks_called(one.name)
        for other in named[1:]:  # of two commands at the same time
            self._delete(other)
        if not named:
            request = TaskCreateRequest(
                org=self.org, flux=flux, status="active", description=one.description
            )
            self.call(lambda: self.client.tasks_api().create_task(task_create_request=request))
            return True
        (found, *_) = named
        if found.flux.strip() == flux.strip() and found.status == "active":
            return False
        changed = Task(
            id=found.id,
            org_id=found.org_id,
            name=found.name,
            flux=flux,
            status="active",
            description=one.description,
        )
        self.call(lambda: self.client.tasks_api().update_task(changed))
        return True

    def states(self) -> list[TaskState]:
        """The tasks of this bucket, by name."""
        states = [
            TaskState(
                task.name.removeprefix(self._prefix),
                task.description or "",
                task.status or "",
                task.last_run_status or "",
                task.last_run_error or "",
            )
            for task in self._all()
        ]
        return sorted(states, key=lambda state: state.name)

    def delete(self, name: str) -> None:
        """Delete a task; what it has written stays.

        Raises:
            NotFound: there is no task of this name.
        """
        found = self._tasks_called(name)
        if not found:
            known = ", ".join(state.name for state in self.states()) or "none"
            raise NotFound(f"no task {name!r:.100} of bucket {self.bucket!r}; there are: {known}")
        for task in found:
            self._delete(task)

    def backfill(self, one: Downsampling, start_ns: int, stop_ns: int) -> None:
        """Write the windows that lie in the range, as the task does; it need not exist.

        A window that the range holds in part is left out: it would have a part of its points. A
        range that takes the server longer than the client waits is to be written in parts.
        """
        self._create_target(one.target)
        first = -(-start_ns // one.every_ns) * one.every_ns
        last = stop_ns // one.every_ns * one.every_ns
        if first < last:
            flux = _script(self.bucket, one, f"{first}", f"{last}")
            self.call(lambda: self.client.query_api().query_raw(flux).data)

    @property
    def _prefix(self) -> str:
        return f"sage/{quote(self.bucket, safe='')}/"

    def _task(self, one: Downsampling) -> str:
        late_ns = one.every_ns if one.late_ns is None else one.late_ns
        again = -(-late_ns // one.every_ns)
        name = text(f"{self._prefix}{one.name}")
        return "\n".join(
            [
                f"option task = {{name: {name}, every: {one.every_ns // SECOND_NS}s}}",
                f"stop = int(v: now()) / {one.every_ns} * {one.every_ns}",
                f"start = stop - {(1 + again) * one.every_ns}",
                _script(self.bucket, one, "start", "stop"),
            ]
        )

    def _create_target(self, name: str) -> None:
        buckets = self.client.buckets_api()
        if self.call(lambda: buckets.find_bucket_by_name(name)) is None:
            self.call(lambda: buckets.create_bucket(bucket_name=name, org=self.org))

    def _tasks_called(self, name: str) -> list[Task]:
        return [task for task in self._all() if task.name == f"{self._prefix}{name}"]

    def _all(self) -> list[Task]:
        tasks = self.client.tasks_api()
        found = self.call(lambda: [*tasks.find_tasks_iter(org=self.org, limit=PAGE_TASKS)])
        return [task for task in found if task.name.startswith(self._prefix)]

    def _delete(self, task: Task) -> None:
        self.call(lambda: self.client.tasks_api().delete_task(task.id))


def _script(bucket: str, one: Downsampling, start: str, stop: str) -> str:
    """The query that writes the windows between two times, which are those of windows."""
    source = points_from(bucket, one.measurement, start, stop, {**one.tags, "_field": one.field})
    by = sorted(map(text, one.wanted.by))
    columns = ", ".join([*by, '"_start"', '"_stop"'])
    kept = ", ".join([*by, '"_start"', '"_value"'])
    lines = [
        f"windows = {source} |> window(every: {one.every_ns}ns) |> group(columns: [{columns}])"
    ]
    for function in one.wanted.functions:
        pipe = [
            "windows",
            _call(function),
            f"keep(columns: [{kept}])",
            f'set(key: "_measurement", value: {text(one.measurement)})',
            f'set(key: "_field", value: {text(one.field_of(function))})',
            'duplicate(column: "_start", as: "_time")',
            f"to(bucket: {text(one.target)}, tagColumns: [{', '.join(by)}])",
            f"yield(name: {text(function)})",
        ]
        lines.append(" |> ".join(pipe))
    return "\n".join(lines)


def _call(function: str) -> str:
    if function in {"first", "last"}:
        return f"{BY_TIME} |> {function}()"
    return f"{function}()" if function in PARTS else f"toFloat() |> {of_all(function)}"
