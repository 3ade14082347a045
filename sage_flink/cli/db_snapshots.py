"""``sage db snapshots`` and ``vacuum``: what a collection with snapshots keeps of its past."""

from contextlib import closing
from datetime import UTC, datetime
from typing import Annotated

import typer

from sage_flink.cli.milvus_collections import Connection, Name, dim_of, open_collection
from sage_flink.cli.output import AsJson, console, print_json, print_table, table
from sage_flink.common import ConfigError
from sage_flink.db import collection
from sage_flink.db.snapshot_reads import SnapshotReads


def snapshots(name: Name, connection: Connection = "", as_json: AsJson = False) -> None:
    """List the snapshots that are kept, oldest first; --as-of reads the rows of one."""
    with closing(open_collection(name, connection)) as store:
        if not isinstance(store, SnapshotReads):
            raise ConfigError(f"collection {name!r}: it was made without snapshots=True")
        found = store.history()
    if as_json:
        print_json(found)
        return
    rows = table("time", "completed", "epoch")
    for one in found:
        rows.add_row(_text(one.time_ms), _text(one.completed_at_ms), str(one.epoch))
    print_table(rows, empty=f"no snapshots in {name}: no checkpoint of its job is complete")


def vacuum(
    name: Name,
    keep_s: Annotated[
        float, typer.Option(min=10, help="Keep what was visible in so many seconds.")
    ] = 3600,
    connection: Connection = "",
) -> None:
    """Remove the versions of rows that no snapshot kept shows; a running job does so by itself."""
    dim = dim_of(name, connection)
    removed = collection(name, dim=dim, connection=connection, keep_s=keep_s).vacuum()
    console.print(f"{removed} rows of {name} removed")


COMMANDS = (snapshots, vacuum)


def _text(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(timespec="milliseconds")
