"""``sage jobs account``: where a job's records went, and whether that adds up."""

import json
from dataclasses import asdict

import typer
from rich.table import Table

from sage_flink.cli.shown import console
from sage_flink.platform.account import account
from sage_flink.platform.balance import Balance
from sage_flink.platform.flink_rest import ENDED, FlinkRest, Job

COLUMNS = ("read", "emitted", "written", "dead_lettered", "in_flight")


def show(rest: FlinkRest, name: str, *, wait_s: float, as_json: bool) -> None:
    """Print the account of the job; exit with 1 when it does not close."""
    job = rest.job(name)
    found = account(rest, job, wait_s=wait_s)
    job = rest.job(job.id)
    if as_json:
        print(json.dumps(told(job, found)))
    else:
        console.print(table(found))
        for line in words(job, found):
            console.print(line, soft_wrap=True)
    if not found.closes:
        raise typer.Exit(1)


def told(job: Job, found: Balance) -> dict[str, object]:
    """The account as JSON."""
    return {
        "job": job.name,
        "id": job.id,
        "state": job.state,
        "closes": found.closes,
        "in_flight": found.in_flight,
        "gaps": list(found.gaps),
        "steps": [asdict(row) for row in found.rows],
    }


def table(found: Balance) -> Table:
    """One row a step."""
    made = Table("step", box=None)
    for column in COLUMNS:
        made.add_column(column.replace("_", " "), justify="right")
    for row in found.rows:
        cells = (getattr(row, column) for column in COLUMNS)
        made.add_row(row.step, *("" if cell is None else f"{cell:,}" for cell in cells))
    return made


def words(job: Job, found: Balance) -> list[str]:
    """What is wrong or under way, a line each, and the verdict."""
    held = [f"{row.step} {row.in_flight:,}" for row in found.rows if row.in_flight]
    lines = [f"does not add up: {gap}" for gap in found.gaps]
    if held:
        kept = "left in the last checkpoint" if job.state in ENDED else "in flight"
        lines.append(f"{kept}: {', '.join(held)}")
    said = "closes" if found.closes else "does not close"
    return [*lines, f"the account of {job.name} ({job.state}) {said}"]
