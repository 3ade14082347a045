"""``sage up``, ``down``, ``ps``, ``logs``, ``url``: the local stack."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.table import Column
from rich.text import Text

from sage_flink.cli.output import AsJson, console, print_json, print_table, table
from sage_flink.common import Settings, sage_home
from sage_flink.platform import stack
from sage_flink.platform.stack.servers import FLINK, SERVERS, select

NAMES = f"{', '.join(SERVERS)}; flink for both of Flink's"


def up(
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SERVER]...", help=f"All by default, or: {NAMES}."),
    ] = None,
    secured: Annotated[
        bool | None,
        typer.Option(
            "--secure/--no-secure",
            help="Whether clients need TLS and a secret; as before by default, and new stacks are "
            "open. For another mode `sage down` first.",
        ),
    ] = None,
) -> None:
    """Start the servers of the local stack and wait until they are ready."""
    stack.up(sage_home(), only=frozenset(only) if only else None, secured=secured)
    if text := stack.security(sage_home()):
        console.print(text, soft_wrap=True)


def down() -> None:
    """Drain the jobs and stop the local stack with all its processes."""
    stopped = stack.down(sage_home())
    console.print(f"stopped: {', '.join(stopped)}" if stopped else "the stack was not running")


def ps(as_json: AsJson = False) -> None:
    """Show each server's state, process, memory, uptime and address."""
    servers = stack.status(sage_home())
    if as_json:
        print_json(servers)
        return
    numbers = (Column(name, justify="right", no_wrap=True) for name in ("pid", "rss MiB", "up s"))
    rows = table("server", "state", *numbers, "address")
    for server in servers:
        rss, seconds = f"{server.rss_mib:.0f}", f"{server.uptime_s:.0f}"
        rows.add_row(server.name, server.state, str(server.pid or ""), rss, seconds, server.url)
    print_table(rows)
    for server in servers:
        if server.hint:
            hint = Text.assemble((f"{server.name}:", "yellow"), f" {server.hint}")
            console.print(hint, soft_wrap=True)
    if text := stack.security(sage_home()):
        console.print(text, soft_wrap=True)
    if all(server.state == "stopped" for server in servers):
        console.print("the stack is not running; start it with `sage up`")


def logs(
    name: Annotated[str, typer.Argument(metavar="SERVER", help=f"{NAMES}; supervisord.")],
    lines: Annotated[int, typer.Option("-n", help="How many lines.", min=1)] = 50,
    follow: Annotated[bool, typer.Option("-f", help="Print new lines as they arrive.")] = False,
) -> None:
    """Print the end of a server's log."""
    names = FLINK if name == "flink" else (name,)
    for line in _tail([stack.log_path(sage_home(), server) for server in names], lines, follow):
        print(line, end="", flush=follow)


def url(name: Annotated[str, typer.Argument(metavar="SERVER", help=f"{NAMES}.")]) -> None:
    """Print the address of a server, for scripts."""
    settings = Settings.load()
    select([name])
    addresses = {
        "kafka": settings.kafka_servers,
        "milvus": settings.milvus_url,
        "influxdb": settings.influxdb_url,
        "gateway": settings.gateway_url,
        "zookeeper": stack.address(sage_home(), "zookeeper"),
    }
    print(addresses.get(name, settings.flink_url))


def _tail(paths: Sequence[Path], lines: int, follow: bool) -> Iterator[str]:
    """The last lines of each file, below its name if there are several; then the new lines."""
    with ExitStack() as open_files:
        files: list[TextIO] = [
            open_files.enter_context(p.open(encoding="utf-8", errors="replace")) for p in paths
        ]
        for path, file in zip(paths, files, strict=True):
            if len(paths) > 1:
                yield f"==> {path.stem} <==\n"
            yield from deque(file, lines)
        while follow:
            new = [line for file in files if (line := file.readline())]
            yield from new
            if not new:
                time.sleep(0.2)
