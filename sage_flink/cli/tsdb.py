"""``sage tsdb``: buckets of time series, their points and aggregates."""

import re
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from sage_flink.cli.output import AsJson, console, print_json, print_table, table
from sage_flink.common import ConfigError
from sage_flink.tsdb import Aggregation, Point, bucket, fill
from sage_flink.tsdb.aggregates import Aggregate
from sage_flink.tsdb.fills import FILLS
from sage_flink.tsdb.time_series_store import POINTS_MAX, TIME_MAX_NS, TIME_MIN_NS

NS = 1_000_000_000
#: Points in one file: they are kept in memory.
EXPORT_MAX = 1_000_000
#: How many windows a plot has, unless their length is given.
WINDOWS = 100
NEED_FUNCTION = "a field, --every, --period, --session, --by and --fill"
_UNITS = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")

app = typer.Typer(help="Time series: list, query, export.", no_args_is_help=True)

BucketName = Annotated[str, typer.Argument(metavar="BUCKET", help="A bucket's name, such as ops.")]
Measurement = Annotated[str, typer.Argument(help="A measurement; `sage tsdb ls BUCKET` has them.")]
Connection = Annotated[
    str, typer.Option("--connection", help="A connection's name; without it the settings'.")
]
Since = Annotated[
    str, typer.Option("--since", help="A time such as 2026-01-31T12:00Z, or how long ago: 90s, 2h.")
]
Until = Annotated[str, typer.Option("--until", help="The same; points before it.")]
Functions = Annotated[
    list[str],
    typer.Option("--function", "-f", help="mean, max, p99, rate, ...; several may be given"),
]
Period = Annotated[str, typer.Option(help="The length of windows that begin --every and overlap.")]
Session = Annotated[
    str, typer.Option(help="Windows end after this long without points; not with --every.")
]
Tags = Annotated[list[str], typer.Option("--tag", help="NAME=VALUE that points must have.")]


@app.command("ls")
def list_fields(name: BucketName, connection: Connection = "", as_json: AsJson = False) -> None:
    """List the measurements of a bucket with their fields and how many points they have."""
    with closing(bucket(name, connection=connection).open(create=False)) as store:
        types = store.field_types()
        found = [(one, store.count(one), _type_names(types[one])) for one in sorted(types)]
    if as_json:
        print_json([{"measurement": m, "points": n, "fields": f} for m, n, f in found])
        return
    rows = table("measurement", "fields", numbers=("points",))
    for measurement, points, kinds in found:
        fields = ", ".join(f"{field} {kind}" for field, kind in kinds.items())
        rows.add_row(measurement, fields, str(points))
    print_table(rows, empty=f"no points in {name}")


@app.command()
def query(
    name: BucketName,
    measurement: Measurement,
    field: Annotated[str, typer.Argument(help="A field, for aggregates.")] = "",
    functions: Functions = [],  # noqa: B006 - typer's way to say a list
    every: Annotated[str, typer.Option(help="The length of a window, such as 1m.")] = "",
    period: Period = "",
    session: Session = "",
    by: Annotated[list[str], typer.Option(help="A tag to group by; several may be given.")] = [],  # noqa: B006
    fill_by: Annotated[
        str, typer.Option("--fill", help=f"Windows without points: {', '.join(FILLS)}.")
    ] = "",
    tags: Tags = [],  # noqa: B006
    since: Since = "1h",
    until: Until = "",
    limit: Annotated[int, typer.Option(min=1, max=POINTS_MAX, help="Points at most.")] = 20,
    connection: Connection = "",
    as_json: AsJson = False,
) -> None:
    """Show points, or with functions the aggregates of a field in windows and groups."""
    start_ns, stop_ns = _range(since, until)
    where: dict[str, Any] = {"tags": tags_of(tags), "start_ns": start_ns, "stop_ns": stop_ns}
    if not functions:
        if field or every or period or session or by or fill_by:
            raise ConfigError(f"sage tsdb query: {NEED_FUNCTION} need a --function")
        with closing(bucket(name, connection=connection).open(create=False)) as store:
            _show_points(store.query(measurement, points_max=limit + 1, **where), limit, as_json)
        return
    if not field:
        raise ConfigError("sage tsdb query: a --function needs a field after the measurement")
    every_ns, period_ns, gap_ns = (
        duration_ns(text) if text else None for text in (every, period, session)
    )
    wanted = Aggregation(tuple(functions), every_ns, period_ns, tuple(by), gap_ns)
    with closing(bucket(name, connection=connection).open(create=False)) as store:
        aggregates = store.aggregate(measurement, field, wanted, **where)
    if fill_by:
        aggregates = _with_all_windows(aggregates, fill_by, wanted, start_ns, stop_ns)
    _show_aggregates(aggregates, wanted, as_json)


@app.command()
def plot(
    name: BucketName,
    measurement: Measurement,
    field: Annotated[str, typer.Argument(help="A field.")],
    function: Annotated[str, typer.Option("--function", "-f", help="mean, max, p99, ...")] = "mean",
    every: Annotated[str, typer.Option(help="A window's length; a 100th of the range else.")] = "",
    by: Annotated[list[str], typer.Option(help="A tag: one line for each value.")] = [],  # noqa: B006
    to: Annotated[
        Path | None, typer.Option(help="A file that ends with .png or .svg, not the terminal.")
    ] = None,
    tags: Tags = [],  # noqa: B006
    since: Since = "1h",
    until: Until = "",
    connection: Connection = "",
) -> None:
    """Draw the aggregates of a field over time, in the terminal or as a picture."""
    from sage_flink.cli.plots import draw

    start_ns, stop_ns = _range(since, until)
    every_ns = duration_ns(every) if every else max(1, (stop_ns - start_ns) // WINDOWS)
    wanted = Aggregation((function,), every_ns, by=tuple(by))
    with closing(bucket(name, connection=connection).open(create=False)) as store:
        found = store.aggregate(
            measurement, field, wanted, tags=tags_of(tags), start_ns=start_ns, stop_ns=stop_ns
        )
    if not found:
        console.print("no points in this range; --since is 1h unless it is given")
        return
    draw(found, f"{function} of {field}, {measurement}", to)


@app.command()
def export(
    name: BucketName,
    measurement: Measurement,
    file: Annotated[Path, typer.Argument(help="A file that ends with .parquet or .csv.")],
    tags: Tags = [],  # noqa: B006
    since: Since = "",
    until: Until = "",
    connection: Connection = "",
) -> None:
    """Write points into a file, a column for each tag and field; it replaces one of that name."""
    from sage_connectors.point_files import write_points

    start_ns = time_ns(since) if since else TIME_MIN_NS
    stop_ns = time_ns(until) if until else TIME_MAX_NS
    with (
        closing(bucket(name, connection=connection).open(create=False)) as store,
        console.status("exporting"),
    ):
        found = store.query(
            measurement,
            tags=tags_of(tags),
            start_ns=start_ns,
            stop_ns=stop_ns,
            points_max=EXPORT_MAX + 1,
        )
        if len(found) > EXPORT_MAX:
            raise ConfigError(
                f"there are more than {EXPORT_MAX} points; narrow --since and --until"
            )
        write_points(file, found)
    console.print(f"{len(found)} points in {file}", soft_wrap=True)


def _with_all_windows(
    found: list[Aggregate], how: str, wanted: Aggregation, start_ns: int, stop_ns: int
) -> list[Aggregate]:
    if wanted.every_ns is None or how not in FILLS:
        raise ConfigError(f"sage tsdb query: --fill is one of {', '.join(FILLS)}, with --every")
    return fill(found, how, wanted.every_ns, start_ns, stop_ns, wanted.period_ns)


def _range(since: str, until: str) -> tuple[int, int]:
    start_ns, stop_ns = time_ns(since), time_ns(until) if until else time.time_ns()
    if start_ns >= stop_ns:
        raise ConfigError(f"--since {since!r} is not before --until {until or 'now'!r}")
    return start_ns, stop_ns


def time_ns(text: str) -> int:
    """A time of ISO 8601, UTC unless it says otherwise, or a duration before now."""
    if _DURATION.fullmatch(text):
        return time.time_ns() - duration_ns(text)
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is neither a time such as 2026-01-31 nor 90s, 2h") from error
    parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    time_ns = int(parsed.replace(microsecond=0).timestamp()) * NS + parsed.microsecond * 1000
    return max(TIME_MIN_NS, min(time_ns, TIME_MAX_NS))


def duration_ns(text: str) -> int:
    """A length of time, such as 500ms, 90s, 5m, 2h or 7d."""
    match = _DURATION.fullmatch(text)
    if not match or not float(match[1]):
        raise ConfigError(f"{text!r} is no duration such as 500ms, 90s, 5m, 2h, 7d")
    return round(float(match[1]) * _UNITS[match[2]] * NS)


def tags_of(given: list[str]) -> dict[str, str]:
    """The tags of options NAME=VALUE."""
    if wrong := [pair for pair in given if not all(pair.partition("="))]:
        raise ConfigError(f"--tag must be NAME=VALUE, got {wrong[0]!r}")
    return dict(pair.split("=", 1) for pair in given)


def _type_names(types: dict[str, type]) -> dict[str, str]:
    return {name: types[name].__name__ for name in sorted(types)}


def _show_points(found: list[Point], limit: int, as_json: bool) -> None:
    if as_json:
        print_json(found[:limit])
        return
    rows = table("time", "tags", "fields")
    for one in found[:limit]:
        rows.add_row(_time(one.timestamp_ns), _pairs(one.tags), _pairs(one.fields))
    print_table(rows, empty="no points in this range; --since is 1h unless it is given")
    if len(found) > limit:
        console.print(f"the first {limit}; more with --limit")


def _show_aggregates(found: list[Aggregate], wanted: Aggregation, as_json: bool) -> None:
    if as_json:
        print_json([_without_end(one) if one.end_ns is None else one for one in found])
        return
    columns = ["window"] if wanted.every_ns else []
    columns = ["session", "until"] if wanted.session_gap_ns else columns
    rows = table(*columns, *wanted.by, numbers=wanted.functions)
    for one in found:
        window = [_time(one.start_ns), _time(one.end_ns or 0)][: len(columns)]
        groups = [one.tags.get(name, "") for name in wanted.by]
        rows.add_row(*window, *groups, *map(_number, one.values.values()))
    print_table(rows, empty="no points in this range; --since is 1h unless it is given")


def _without_end(one: Aggregate) -> dict[str, Any]:
    return {"tags": one.tags, "start_ns": one.start_ns, "values": one.values}


def _time(time_ns: int) -> str:
    text = datetime.fromtimestamp(time_ns // NS, UTC).strftime("%Y-%m-%d %H:%M:%S")
    rest = f"{time_ns % NS:09}".rstrip("0")
    return f"{text}.{rest}" if rest else text


def _pairs(values: dict[str, Any]) -> str:
    return " ".join(f"{k}={v}" for k, v in values.items())


def _number(value: object) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
