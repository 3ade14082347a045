"""``sage connections``: the named connections, and whether each can be opened."""

import threading
from collections.abc import Callable
from typing import Annotated, Any

import typer

from sage_flink.cli.output import AsJson, console, print_json, print_table, table
from sage_flink.common import ConfigError, StoreUnavailable
from sage_flink.common.connections import KINDS, Connection
from sage_flink.common.connections_file import connection_to, connections_file, load_connections

LIMIT_S = 30.0

app = typer.Typer(help="Named connections: list, test.", no_args_is_help=True)


@app.command("ls")
def list_connections(as_json: AsJson = False) -> None:
    """List the connections: address, how secured, and the file that defines each."""
    found = load_connections()
    lines = [_line(name, connection, str(path)) for name, (connection, path) in found.items()]
    if as_json:
        print_json(lines)
        return
    rows = table("name", "kind", "address", "secured by", "defined in")
    for line in lines:
        rows.add_row(*line.values())
    print_table(rows, empty=f"no connections; write them into {connections_file()}", wide=True)


@app.command("test")
def open_once(
    name: Annotated[str, typer.Argument(help="A connection's name.")], as_json: AsJson = False
) -> None:
    """Open a connection as a job would, within 30 seconds; exits with 2 if it cannot be opened.

    The message names the setting that is wrong. This process needs the connection's secrets.
    """
    from sage_connectors.server_check import check_server

    connection = _connection(name)
    about = _within(LIMIT_S, lambda: check_server(connection), connection.where)
    if as_json:
        print_json({"name": name, "address": connection.address, "server": about})
    else:
        console.print(f"{name}: ok: {about}", soft_wrap=True)


def _line(name: str, connection: Connection, path: str) -> dict[str, str]:
    return {
        "name": name,
        "kind": connection.kind,
        "address": connection.address,
        "secured_by": connection.security,
        "defined_in": path,
    }


def _connection(name: str) -> Connection:
    """The connection of this name; ``kafka`` and so on are there without a definition too."""
    known = load_connections()
    if name in known:
        return known[name][0]
    if name in KINDS and KINDS[name].setting:
        own: Connection = connection_to("", KINDS[name])
        return own
    names = ", ".join(sorted({*known, *(kind for kind in KINDS if KINDS[kind].setting)}))
    raise ConfigError(f"no connection {name!r} in {connections_file()}; there are: {names}")


def _within(limit_s: float, ask: Callable[[], str], where: str) -> str:
    """What ``ask`` returns, which may wait for a name server or a client for longer.

    Raises:
        StoreUnavailable: it takes longer than ``limit_s``.
    """
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(ask())
        except Exception as error:  # raised again below, in the thread of the command
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit_s)
    match ended:
        case [str() as about]:
            return about
        case [Exception() as error]:
            raise error
    raise StoreUnavailable(f"{where}: no answer within {limit_s:g} s")
