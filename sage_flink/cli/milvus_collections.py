"""Options and helpers of the commands of ``sage db``."""

from typing import Annotated

import typer

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


def server_of(connection: str) -> MilvusConnection:
    """The connection of that name; of none that of the settings."""
    if not connection:
        own: MilvusConnection = connection_to("", MilvusConnection)
        return own
    named: MilvusConnection = named_connection(connection, MilvusConnection)
    return named


def open_collection(name: str, connection: str) -> VectorStore:
    """The store of a collection that exists.

    Raises:
        NotFound: there is no such collection.
    """
    from sage_connectors.milvus_server import MilvusServer

    with MilvusServer(server_of(connection)) as milvus:
        dim = milvus.summary(name).dim
    return collection(name, dim=dim, connection=connection).open(create=False)


def filter_of(where: str) -> RowFilter | None:
    """The filter of the option; of none None."""
    return parse_filter(where) if where else None
