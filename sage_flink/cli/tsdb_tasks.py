"""``sage tsdb tasks`` and ``sage tsdb retention``: what InfluxDB does with a bucket by itself."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from sage_flink.cli.output import AsJson, console, print_json, print_table, table
from sage_flink.cli.tsdb import (
    NS,
    BucketName,
    Connection,
    Measurement,
    Tags,
    duration_ns,
    tags_of,
    time_ns,
)
from sage_flink.common import ConfigError
from sage_flink.tsdb import Aggregation, bucket

if TYPE_CHECKING:
    from sage_connectors.influxdb import InfluxStore

FOREVER = "forever"

app = typer.Typer(help="Tasks that aggregate a bucket into another one.", no_args_is_help=True)


@app.command("put")
def put_task(
    name: BucketName,
    measurement: Measurement,
    field: Annotated[str, typer.Argument(help="A field.")],
    target: Annotated[str, typer.Argument(help="The bucket for the aggregates.")],
    functions: Annotated[
        list[str],
        typer.Option("--function", "-f", help="mean, max, p99, ...; several may be given"),
    ],
    every: Annotated[str, typer.Option(help="The length of a window, such as 1m.")],
    by: Annotated[list[str], typer.Option(help="A tag to keep; several may be given.")] = [],  # noqa: B006
    tags: Tags = [],  # noqa: B006
    late: Annotated[
        str, typer.Option(help="How late points may come; as long as a window else.")
    ] = "",
    task: Annotated[
        str, typer.Option("--name", help="The task's; MEASUREMENT FIELD EVERY else.")
    ] = "",
    since: Annotated[str, typer.Option(help="Also the windows since this time, now.")] = "",
    connection: Connection = "",
) -> None:
    """Make a task that writes aggregates of a field; the same one again changes nothing."""
    from sage_connectors.influxdb_downsampling import Downsampling

    wanted = Aggregation(tuple(functions), duration_ns(every), by=tuple(by))
    one = Downsampling(
        task or f"{measurement} {field} {every}",
        measurement,
        field,
        target,
        wanted,
        duration_ns(late) if late else None,
        tags_of(tags),
    )
    start_ns = time_ns(since) if since else None
    with _influxdb(name, connection) as store:
        changed = store.downsampling.put(one)
        if start_ns is not None:
            store.downsampling.backfill(one, start_ns, time.time_ns())
    console.print(f"task {one.name}: {'as before' if not changed else one.description}")


@app.command("ls")
def list_tasks(name: BucketName, connection: Connection = "", as_json: AsJson = False) -> None:
    """List the tasks of a bucket, and how the last run of each ended."""
    with _influxdb(name, connection) as store:
        found = store.downsampling.states()
    if as_json:
        print_json(found)
        return
    rows = table("task", "status", "last run", "what it does")
    for one in found:
        rows.add_row(one.name, one.status, one.last_error or one.last_run, one.description)
    print_table(rows, empty=f"no tasks of {name}")


@app.command("delete")
def delete_task(
    name: BucketName,
    task: Annotated[str, typer.Argument(help="A task; `sage tsdb tasks ls BUCKET` has them.")],
    connection: Connection = "",
) -> None:
    """Delete a task; what it has written stays."""
    with _influxdb(name, connection) as store:
        store.downsampling.delete(task)
    console.print(f"task {task} is deleted")


def retention(
    name: BucketName,
    keep: Annotated[
        str, typer.Argument(help=f"How long to keep points, such as 30d; or {FOREVER}.")
    ] = "",
    connection: Connection = "",
) -> None:
    """Show for how long a bucket keeps points, or change it; older points are deleted."""
    seconds = None if keep in {"", FOREVER} else duration_ns(keep) // NS
    with _influxdb(name, connection) as store:
        if keep:
            store.retention.change(seconds)
        found = store.retention.seconds()
    console.print(f"{name} keeps points {FOREVER if found is None else f'for {_length(found)}'}")


@contextmanager
def _influxdb(name: str, connection: str) -> "Iterator[InfluxStore]":
    from sage_connectors.influxdb import InfluxStore

    with closing(bucket(name, connection=connection).open(create=False)) as store:
        if not isinstance(store, InfluxStore):
            raise ConfigError(f"bucket {name!r}: only InfluxDB has tasks and a retention")
        yield store


def _length(seconds: int) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds % unit == 0:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"
