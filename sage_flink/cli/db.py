"""``sage db``: collections of vectors, and their rows."""

import itertools
from contextlib import closing
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.progress import Progress

from sage_flink.cli import db_reindex, db_snapshots
from sage_flink.cli.db_search import search
from sage_flink.cli.milvus_collections import (
    AsOf,
    Connection,
    Name,
    Where,
    filter_of,
    open_collection,
    server_of,
)
from sage_flink.cli.output import AsJson, console, print_json, print_table, table
from sage_flink.common import ConfigError
from sage_flink.db import collection

app = typer.Typer(
    help="Collections of vectors: list, search, export, reindex.", no_args_is_help=True
)
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("ls")
def list_collections(connection: Connection = "", as_json: AsJson = False) -> None:
    """List the collections; the rows of one that is not loaded are not known."""
    from sage_connectors.milvus_server import MilvusServer

    server = server_of(connection)
    with MilvusServer(server) as milvus:
        found = [milvus.summary(name) for name in milvus.names()]
    if as_json:
        print_json(found)
        return
    rows = table("collection", "metric", "index", "loaded", numbers=("rows", "dim"))
    for one in found:
        loaded = "yes" if one.loaded else "no"
        rows.add_row(one.name, one.metric, one.index, loaded, _cell(one.rows), str(one.dim))
    print_table(rows, empty=f"no collections at {server.url}; a job that writes into one makes it")


@app.command()
def describe(name: Name, connection: Connection = "", as_json: AsJson = False) -> None:
    """Show a collection: its fields, index and rows, and what it keeps of older snapshots."""
    from sage_connectors.milvus_server import MilvusServer

    with MilvusServer(server_of(connection)) as milvus:
        found = milvus.summary(name)
    if as_json:
        print_json(found)
        return
    rows = table("", "")
    for title, value in msgspec.to_builtins(found).items():
        if title != "other_versions" or value is not None:
            rows.add_row(title, _cell(value))
    print_table(rows)


@app.command()
def count(
    name: Name,
    where: Where = "",
    as_of: AsOf = "",
    connection: Connection = "",
    as_json: AsJson = False,
) -> None:
    """Count the rows, all or those that match, with every write acknowledged before."""
    condition = filter_of(where)
    with closing(open_collection(name, connection, as_of)) as store:
        rows = store.count(where=condition)
    print_json({"collection": name, "rows": rows}) if as_json else console.print(rows)


app.command()(search)


@app.command()
def export(
    name: Name,
    file: Annotated[Path, typer.Argument(help="A file that ends with .parquet or .jsonl.")],
    where: Where = "",
    as_of: AsOf = "",
    connection: Connection = "",
) -> None:
    """Write the rows, with vectors and fields, into a file; it replaces one of that name."""
    from sage_connectors.vector_files import write_rows

    condition = filter_of(where)
    with (
        closing(open_collection(name, connection, as_of)) as store,
        Progress(console=console, transient=True) as progress,
    ):
        total = store.count(where=condition)
        written = write_rows(
            file, progress.track(store.scan(condition), total, description="export")
        )
    console.print(f"{written} rows in {file}", soft_wrap=True)


@app.command("import")
def import_rows(
    name: Name,
    file: Annotated[Path, typer.Argument(help="A file of `sage db export`, or one like it.")],
    connection: Connection = "",
) -> None:
    """Upsert the rows of a file by their ids; makes the collection when it is absent.

    Exits with 1 when rows are refused; the others are stored.
    """
    from sage_connectors.vector_files import read_batches

    batches = read_batches(file)
    first = next(batches, None)
    if first is None:
        console.print(f"{file} has no rows", soft_wrap=True)
        return
    stored, refused = 0, 0
    store = collection(name, dim=len(first[0].vector) // 4, connection=connection).open()
    try:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("importing", total=None)
            for batch in itertools.chain([first], batches):
                bad = store.upsert(batch)
                for row in bad:
                    console.print(f"refused: {row.id}: {row.reason}", soft_wrap=True)
                stored, refused = stored + len(batch) - len(bad), refused + len(bad)
                progress.update(task, completed=stored)
    finally:
        store.close()
    console.print(f"{stored} rows stored in {name}, {refused} refused")
    if refused:
        raise typer.Exit(1)


@app.command()
def delete(name: Name, where: Where, yes: Yes = False, connection: Connection = "") -> None:
    """Delete the rows that match; asks first."""
    condition = filter_of(where)
    if condition is None:
        raise ConfigError("sage db delete: --where is empty; to delete all rows use sage db drop")
    with closing(open_collection(name, connection)) as store:
        if not yes:
            typer.confirm(f"delete {store.count(where=condition)} rows of {name}?", abort=True)
        console.print(f"{store.delete_where(condition)} rows of {name} deleted")


@app.command()
def drop(name: Name, yes: Yes = False, connection: Connection = "") -> None:
    """Drop a collection with all its rows; asks first."""
    from sage_connectors.milvus_server import MilvusServer

    with MilvusServer(server_of(connection)) as milvus:
        rows = _cell(milvus.summary(name).rows)
        if not yes:
            typer.confirm(f"drop {name} with {rows} rows?", abort=True)
        milvus.drop(name)
    console.print(f"{name} dropped")


for command in (*db_reindex.COMMANDS, *db_snapshots.COMMANDS):
    app.command()(command)


def _cell(value: object) -> str:
    """A value of a summary, for people."""
    if isinstance(value, dict):
        return "\n".join(f"{name} {kind}" for name, kind in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "?" if value is None else str(value)
