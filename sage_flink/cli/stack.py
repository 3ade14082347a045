"""``sage up``, ``down``, ``ps``, ``logs``, ``url``: the local stack."""

import json
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, TextIO

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from sage_flink.cli.shown import AsJson, console
from sage_flink.common import Settings, sage_home
from sage_flink.platform import stack
from sage_flink.platform.stack.parts import FLINK, PARTS, select

NAMES = f"{', '.join(PARTS)}; flink for both of Flink's"


def up(
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PART]...", help=f"All by default, or: {NAMES}."),
    ] = None,
) -> None:
    """Start the local stack and wait until it is ready."""
    stack.up(sage_home(), only=frozenset(only) if only else None)


def down() -> None:
    """Stop the local stack; no process and no open port stays."""
    stopped = stack.down(sage_home())
    console.print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


def ps(as_json: AsJson = False) -> None:
    """Show each part: state, process, memory, uptime, address."""
    parts = stack.status(sage_home())
    if as_json:
        print(json.dumps(msgspec.to_builtins(parts, enc_hook=str)))  # the log's path
        return
    table = Table("part", "state", "pid", "rss MiB", "up s", "address", box=None)
    for p in parts:
        pid, rss, seconds = p.pid or "", f"{p.rss_mib:.0f}", f"{p.uptime_s:.0f}"
        table.add_row(p.name, p.state, str(pid), rss, seconds, p.url or "")
    console.print(table)
    for p in parts:
        if p.hint:
            console.print(Text.assemble((f"{p.name}:", "yellow"), f" {p.hint}"), soft_wrap=True)
    if all(p.state == "stopped" for p in parts):
        console.print("nothing runs; start with `sage up`")


def logs(
    name: Annotated[str, typer.Argument(metavar="PART", help=f"{NAMES}; supervisord.")],
    lines: Annotated[int, typer.Option("-n", help="How many lines.", min=1)] = 50,
    follow: Annotated[bool, typer.Option("-f", help="Go on as the file grows.")] = False,
) -> None:
    """Print the end of a part's log."""
    names = FLINK if name == "flink" else (name,)
    for line in _tail([stack.log_path(sage_home(), part) for part in names], lines, follow):
        print(line, end="", flush=follow)


def url(name: Annotated[str, typer.Argument(metavar="PART", help=f"{NAMES}.")]) -> None:
    """Print the address of a part, for scripts."""
    settings = Settings.load()
    select([name])
    known = {
        "kafka": settings.kafka_servers,
        "milvus": settings.milvus_url,
        "influxdb": settings.influxdb_url,
        "gateway": settings.gateway_url,
        "zookeeper": stack.address(sage_home(), "zookeeper"),
    }
    print(known.get(name, settings.flink_url))


def _tail(paths: Sequence[Path], lines: int, follow: bool) -> Iterator[str]:
    """The last lines of each file, under its name where there are several; then what comes."""
    with ExitStack() as opened:
        files: list[TextIO] = [opened.enter_context(p.open(errors="replace")) for p in paths]
        for path, file in zip(paths, files, strict=True):
            if len(paths) > 1:
                yield f"==> {path.stem} <==\n"
            yield from deque(file, lines)
        while follow:
            came = [line for file in files if (line := file.readline())]
            yield from came
            if not came:
                time.sleep(0.2)
