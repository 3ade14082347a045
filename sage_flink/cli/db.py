"""``sage db``: collections of vectors, and their rows."""

import itertools
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import Progress

from sage_flink.cli.gateway_client import call_gateway
from sage_flink.cli.output import AsJson, console, print_json, print_table, table
from sage_flink.common import ConfigError
from sage_flink.common.connections import MilvusConnection
from sage_flink.common.connections_file import connection_to, named_connection
from sage_flink.db import RowFilter, VectorStore, collection, parse_filter
from sage_flink.db.vectors import numbers

TEXT_CHARS = 300

app = typer.Typer(help="Collections of vectors: list, search, export.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="A collection's name.")]
Connection = Annotated[
    str, typer.Option("--connection", help="A connection's name; without it the settings' Milvus.")
]
Where = Annotated[
    str,
    typer.Option("--where", help="Rows for which it is true: 'year >= 2024 and lang == \"en\"'"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@app.command("ls")
def list_collections(connection: Connection = "", as_json: AsJson = False) -> None:
    """List the collections; the rows of one that is not loaded are not known."""
    from sage_connectors.milvus_server import MilvusServer

    server = _server(connection)
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
    """Show a collection: its fields, index and rows."""
    from sage_connectors.milvus_server import MilvusServer

    with MilvusServer(_server(connection)) as milvus:
        found = milvus.summary(name)
    if as_json:
        print_json(found)
        return
    rows = table("", "")
    for title, value in msgspec.to_builtins(found).items():
        rows.add_row(title, _cell(value))
    print_table(rows)


@app.command()
def count(
    name: Name, where: Where = "", connection: Connection = "", as_json: AsJson = False
) -> None:
    """Count the rows, all or those that match, with every write acknowledged before."""
    condition = _filter(where)
    with closing(_open(name, connection)) as store:
        rows = store.count(where=condition)
    print_json({"collection": name, "rows": rows}) if as_json else console.print(rows)


@app.command()
def search(
    name: Name,
    text: Annotated[str, typer.Argument(help="What to look for; the gateway embeds it.")] = "",
    near: Annotated[str, typer.Option(help="In place of a text: the id of a row.")] = "",
    top: Annotated[int, typer.Option(min=1, max=50, help="How many rows.")] = 5,
    where: Where = "",
    min_score: Annotated[
        float, typer.Option(min=-1, max=1, help="Leave out rows with a lower score.")
    ] = -1,
    connection: Connection = "",
    as_json: AsJson = False,
) -> None:
    """Search for a text, or for the rows near another one."""
    if bool(text) == bool(near):
        raise ConfigError("sage db search: give a text, or --near and the id of a row")
    condition = _filter(where)
    if near:
        hits = _near(name, connection, near, top, condition, min_score)
    else:
        if connection:
            raise ConfigError(
                "sage db search: a text is searched for by the gateway, which has "
                "a connection of its own; leave out --connection, or use --near"
            )
        limits: dict[str, Any] = {"filters": where} if where else {}
        if min_score > -1:
            limits["ranking_options"] = {"score_threshold": min_score}
        body = {"query": text, "max_num_results": top, **limits}
        page = call_gateway("POST", f"/v1/vector_stores/{name}/search", json=body)
        hits = [_hit_of(item) for item in page["data"]]
    if as_json:
        print_json(hits)
        return
    for hit in hits:
        console.print(f"{hit['score']:.3f}  {hit['id']}", style="bold")
        console.print(str(hit["fields"].get("text", hit["fields"]))[:TEXT_CHARS], soft_wrap=True)
    if not hits:
        console.print("no row matches")


@app.command()
def export(
    name: Name,
    file: Annotated[Path, typer.Argument(help="A file that ends with .parquet or .jsonl.")],
    where: Where = "",
    connection: Connection = "",
) -> None:
    """Write the rows, with vectors and fields, into a file; it replaces one of that name."""
    from sage_connectors.vector_files import write_rows

    condition = _filter(where)
    with (
        closing(_open(name, connection)) as store,
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
    condition = _filter(where)
    if condition is None:
        raise ConfigError("sage db delete: --where is empty; to delete all rows use sage db drop")
    with closing(_open(name, connection)) as store:
        if not yes:
            typer.confirm(f"delete {store.count(where=condition)} rows of {name}?", abort=True)
        console.print(f"{store.delete_where(condition)} rows of {name} deleted")


@app.command()
def drop(name: Name, yes: Yes = False, connection: Connection = "") -> None:
    """Drop a collection with all its rows; asks first."""
    from sage_connectors.milvus_server import MilvusServer

    with MilvusServer(_server(connection)) as milvus:
        rows = _cell(milvus.summary(name).rows)
        if not yes:
            typer.confirm(f"drop {name} with {rows} rows?", abort=True)
        milvus.drop(name)
    console.print(f"{name} dropped")


def _server(connection: str) -> MilvusConnection:
    if not connection:
        own: MilvusConnection = connection_to("", MilvusConnection)
        return own
    named: MilvusConnection = named_connection(connection, MilvusConnection)
    return named


def _open(name: str, connection: str) -> VectorStore:
    """The store of a collection that exists."""
    from sage_connectors.milvus_server import MilvusServer

    with MilvusServer(_server(connection)) as milvus:
        dim = milvus.summary(name).dim
    return collection(name, dim=dim, connection=connection).open(create=False)


def _cell(value: object) -> str:
    """A value of a summary, for people."""
    if isinstance(value, dict):
        return "\n".join(f"{name} {kind}" for name, kind in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "?" if value is None else str(value)


def _filter(where: str) -> RowFilter | None:
    return parse_filter(where) if where else None


def _near(
    name: str, connection: str, near: str, top: int, where: RowFilter | None, min_score: float
) -> list[dict[str, Any]]:
    with closing(_open(name, connection)) as store:
        rows = store.get([near])
        if not rows:
            raise ConfigError(f"no row {near!r} in {name}")
        vector = numbers(rows[0].vector)
        least = min_score if min_score > -1 else None
        hits = store.search(vector, top + 1, where=where, min_score=least)
    found = [msgspec.to_builtins(hit) for hit in hits if hit.id != near]
    return found[:top]


def _hit_of(item: dict[str, Any]) -> dict[str, Any]:
    """A hit of the gateway's page, as a store has it."""
    fields = dict(item["attributes"])
    text = "".join(part["text"] for part in item["content"])
    return {"id": fields.pop("chunk_id"), "score": item["score"], "fields": {"text": text} | fields}
