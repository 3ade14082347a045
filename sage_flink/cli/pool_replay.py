"""``sage pool replay``: recorded requests under another policy, side by side with their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sage_flink.cli.shown import AsJson, console
from sage_flink.common import ConfigError

Many = Annotated[int | None, typer.Option(min=1, metavar="N", help="Else as recorded.")]

SUMS = {
    "requests": "requests",
    "goodput/s": "goodput",
    "refused": "refused",
    "missed": "missed",
    "Jain": "jain",
    "replicas": "replicas",
}
WAITS = {"requests": "requests", "wait p50 ms": "wait_ms_p50", "p99 ms": "wait_ms_p99"}


def replay(
    trace: Annotated[Path, typer.Argument(help="Recorded with `trace: {path: FILE}`.")],
    policy: Annotated[str, typer.Option(help="fifo, priority, slo, fair, cost or adaptive.")],
    replicas: Many = None,
    concurrency: Many = None,
    scaling: Annotated[bool, typer.Option("--scaling", help="Replicas come and go.")] = False,
    start_s: Annotated[float, typer.Option(min=0, help="What a new replica takes.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Run recorded requests through another policy, in simulated time, and show both."""
    given = {"--replicas": replicas, "--concurrency": concurrency, "--start-s": start_s}
    options = [word for name, value in given.items() if value for word in (name, str(value))]
    found = _replayed(trace, policy, [*options, *["--scaling"] * scaling])
    if as_json:
        print(json.dumps(found))
        return
    console.print(_whole(found))
    console.print(_waits(found))


def _whole(found: list[dict[str, Any]]) -> Table:
    table = Table("model", "policy", box=None)
    for name in SUMS:
        table.add_column(name, justify="right")
    for one in found:
        table.add_row(one["model"], one["policy"], *(f"{one[n]:,}" for n in SUMS.values()))
    return table


def _waits(found: list[dict[str, Any]]) -> Table:
    table = Table("model", "policy", "class", box=None)
    for name in WAITS:
        table.add_column(name, justify="right")
    for one in found:
        for part in one["classes"]:
            counts = (f"{part[name]:,.0f}" for name in WAITS.values())
            table.add_row(one["model"], one["policy"], part["priority"], *counts)
    return table


def _replayed(trace: Path, policy: str, options: list[str]) -> list[dict[str, Any]]:
    """The figures; the gateway's own code makes them, in a process that may import it.

    Raises:
        ConfigError: what it says is wrong.
    """
    line = [sys.executable, "-m", "sage_gateway.replay", str(trace), "--policy", policy, *options]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(done.stderr.strip().splitlines()[-1] if done.stderr else "no replay")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
