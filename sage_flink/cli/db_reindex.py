"""``sage db reindex``, ``alias`` and ``rename``: another model for a collection that is in use."""

import base64
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer
from rich.progress import Progress

from sage_flink.cli.gateway_client import GatewayResponseError, call_gateway
from sage_flink.cli.milvus_collections import Connection, Name, open_collection, server_of
from sage_flink.cli.output import AsJson, console, print_json
from sage_flink.common import ConfigError, Rejected
from sage_flink.db import collection
from sage_flink.db.reindex import ReindexCounts
from sage_flink.db.reindex import reindex as reindex_rows

REFUSED_SHOWN = 10
#: Statuses that say something of the texts, such as one that is too long for the model.
OF_THE_TEXT = frozenset({400, 413, 422})


def reindex(
    name: Name,
    target: Annotated[
        str, typer.Argument(metavar="NEW", help="The second collection; made when absent.")
    ],
    model: Annotated[str, typer.Option(help="The model of the new vectors, of the gateway.")],
    full_text: Annotated[
        bool, typer.Option("--full-text", help="Make NEW with search by words (Milvus 2.5).")
    ] = False,
    connection: Connection = "",
    as_json: AsJson = False,
) -> None:
    """Fill a second collection with the rows of one, embedded by another model, or searched by
    words too.

    Run again, it embeds only what has changed since. To change the model of a pipeline: reindex,
    stop the job, reindex once more, submit the job with the new collection and model, and move
    the alias that readers use (`sage db alias`). Exits with 1 when rows are refused.
    """
    _require_two(name, target, connection)
    embed = partial(_embed, model)
    dim = len(embed(["dimension"])[0]) // 4
    second = collection(target, dim=dim, connection=connection, full_text=full_text)
    with (
        closing(open_collection(name, connection)) as source,
        closing(second.open()) as store,
        Progress(console=console, transient=True) as progress,
    ):
        task = progress.add_task("reindex", total=source.count())
        counts = reindex_rows(
            source, store, embed, on_progress=lambda rows: progress.update(task, completed=rows)
        )
    _report(target, model, counts, as_json)
    if counts.refused:
        raise typer.Exit(1)


def rename(
    name: Name,
    to: Annotated[str, typer.Argument(metavar="NEW", help="The new name.")],
    connection: Connection = "",
) -> None:
    """Rename a collection; jobs that write into it must be submitted with the new name."""
    from sage_connectors.milvus_server import MilvusServer

    with MilvusServer(server_of(connection)) as milvus:
        milvus.rename(name, to)
    console.print(f"{name} is {to}", soft_wrap=True)


def alias(
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="Readers use it as a collection.")],
    target: Annotated[str, typer.Argument(metavar="COLLECTION", help="What it stands for.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Remove the alias.")] = False,
    connection: Connection = "",
) -> None:
    """Make, move or remove a second name of a collection; searches see the move at once."""
    from sage_connectors.milvus_server import MilvusServer

    if remove == bool(target):
        raise ConfigError("sage db alias: give a collection, or --remove")
    with MilvusServer(server_of(connection)) as milvus:
        if remove:
            milvus.drop_alias(name)
            console.print(f"alias {name} removed", soft_wrap=True)
        else:
            before = milvus.set_alias(name, target)
            moved = f", before for {before}" if before else ""
            console.print(f"{name} stands for {target}{moved}", soft_wrap=True)


COMMANDS = (reindex, rename, alias)


def _report(target: str, model: str, counts: ReindexCounts, as_json: bool) -> None:
    if as_json:
        print_json({"collection": target, "rows": counts.rows, **asdict(counts)})
    else:
        console.print(
            f"{target}: {counts.embedded} rows embedded by {model}, {counts.unchanged} unchanged, "
            f"{counts.deleted} deleted, {counts.without_text} without a text, "
            f"{len(counts.refused)} refused",
            soft_wrap=True,
        )
        for row in counts.refused[:REFUSED_SHOWN]:
            console.print(f"refused: {row.id}: {row.reason}", soft_wrap=True)


def _require_two(name: str, target: str, connection: str) -> None:
    """Raise ConfigError where the two are one collection, by an alias for instance."""
    from sage_connectors.milvus_server import MilvusServer

    with MilvusServer(server_of(connection)) as milvus:
        known = milvus.summary(name)
    if target in (known.name, *known.aliases):
        raise ConfigError(
            f"sage db reindex: {target} is {known.name} itself; name a new collection"
        )


def _embed(model: str, texts: Sequence[str]) -> list[bytes]:
    body = {"model": model, "input": list(texts), "encoding_format": "base64"}
    try:
        page = call_gateway("POST", "/v1/embeddings", json=body)
    except GatewayResponseError as error:
        if error.status in OF_THE_TEXT:
            raise Rejected(str(error)) from error
        raise
    return [base64.b64decode(item["embedding"]) for item in page["data"]]
