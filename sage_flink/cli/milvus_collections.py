"""Options and helpers of the commands of ``sage db``."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from sage_flink.common import ConfigError
from sage_flink.common.connections import MilvusConnection
from sage_flink.common.connections_file import connection_to, named_connection
from sage_flink.db import RowFilter, VectorStore, collection, parse_filter

Name = Annotated[str, typer.Argument(metavar="COLLECTION", help="A collection's name.")]
Connection = Annotated[
    str, typer.Option("--connection", help="A connection's name; without it the settings' Milvus.")
]
Where = Annotated[
    str,
    typer.Option("--where", help="Rows for which it is true: 'year >= 2024 and lang == \"en\"'"),
]
AsOf = Annotated[
    str, typer.Option("--as-of", help="Rows as of that time: 2026-01-31T12:00:00Z; see snapshots.")
]


def server_of(connection: str) -> MilvusConnection:
    """The connection of that name; of none that of the settings."""
    if not connection:
        own: MilvusConnection = connection_to("", MilvusConnection)
        return own
    named: MilvusConnection = named_connection(connection, MilvusConnection)
    return named


def open_collection(name: str, connection: str, as_of: str = "") -> VectorStore:
    """The store of a collection that exists; ``as_of``: its rows at that time.

    Raises:
        NotFound: there is no such collection.
        ConfigError: ``as_of`` is no time, or the collection keeps no versions.
        Rejected: its versions are not as old.
    """
    at = _time_of(as_of) if as_of else None
    spec = collection(name, dim=dim_of(name, connection), connection=connection)
    return spec.open(create=False, as_of=at)


def dim_of(name: str, connection: str) -> int:
    """The dim of a collection that exists.

    Raises:
        NotFound: there is no such collection.
    """
    from sage_connectors.milvus_server import MilvusServer

    with MilvusServer(server_of(connection)) as milvus:
        return milvus.summary(name).dim


def _time_of(text: str) -> int | datetime:
    if text.isdecimal():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(
            f"--as-of: must be as 2026-01-31T12:00:00Z or milliseconds, got {text!r:.100}"
        ) from None


def filter_of(where: str) -> RowFilter | None:
    """The filter of the option; of none None."""
    return parse_filter(where) if where else None
