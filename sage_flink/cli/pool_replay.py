"""``sage pool replay``: recorded requests under another policy, compared with their own policy."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from sage_flink.cli.output import AsJson, print_json, print_table, table
from sage_flink.common import ConfigError

Count = Annotated[int | None, typer.Option(min=1, metavar="N", help="Default: as recorded.")]

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
    policy: Annotated[str, typer.Option(help="As `policy` in pool.yaml, such as slo.")],
    replicas: Count = None,
    concurrency: Count = None,
    scaling: Annotated[bool, typer.Option("--scaling", help="Simulate autoscaling.")] = False,
    start_s: Annotated[float, typer.Option(min=0, help="Start time of a new replica.")] = 5.0,
    as_json: AsJson = False,
) -> None:
    """Run recorded requests through another policy, in simulated time, and show both."""
    values = {"--replicas": replicas, "--concurrency": concurrency, "--start-s": start_s}
    options = [word for name, value in values.items() if value for word in (name, str(value))]
    results = _simulate(trace, policy, [*options, *["--scaling"] * scaling])
    if as_json:
        print_json(results)
        return
    print_table(_sums(results))
    print_table(_waits(results))


def _sums(results: list[dict[str, Any]]) -> Table:
    rows = table("model", "policy", numbers=SUMS)
    for one in results:
        rows.add_row(one["model"], one["policy"], *(f"{one[n]:,}" for n in SUMS.values()))
    return rows


def _waits(results: list[dict[str, Any]]) -> Table:
    rows = table("model", "policy", "class", numbers=WAITS)
    for one in results:
        for of_class in one["classes"]:
            counts = (f"{of_class[name]:,.0f}" for name in WAITS.values())
            rows.add_row(one["model"], one["policy"], of_class["priority"], *counts)
    return rows


def _simulate(trace: Path, policy: str, options: list[str]) -> list[dict[str, Any]]:
    """The results of the gateway's own replay, run in a process that may import the gateway.

    Raises:
        ConfigError: the replay failed; the message is its last line.
    """
    line = [sys.executable, "-m", "sage_gateway.replay", str(trace), "--policy", policy, *options]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ConfigError(done.stderr.strip().splitlines()[-1] if done.stderr else "no replay")
    results: list[dict[str, Any]] = json.loads(done.stdout)
    return results
