"""``sage jobs account``: the record counts of a job by step, and whether they are balanced."""

from dataclasses import asdict

import typer

from sage_flink.cli.output import console, print_json, print_table, table
from sage_flink.platform.flink_rest import ENDED, FlinkJob, FlinkRest
from sage_flink.platform.job_accounting import job_balance
from sage_flink.platform.job_failures import JobFailure, newest_failure
from sage_flink.platform.record_accounting import Balance

COLUMNS = ("read", "emitted", "written", "dead_lettered", "dropped", "merged", "in_flight")


def show(rest: FlinkRest, name: str, *, wait_s: float, as_json: bool) -> None:
    """Print the balance of the job; exit with 1 when it is not balanced."""
    job = rest.job(name)
    balance = job_balance(rest, job, wait_s=wait_s)
    job = rest.job(job.id)
    failure = newest_failure(rest.exceptions(job.id)) if job.state == "FAILED" else None
    if as_json:
        print_json(json_form(job, balance, failure))
    else:
        _print_counts(balance)
        for line in summary(job, balance, failure):
            console.print(line, soft_wrap=True)
    if not balance.is_balanced:
        raise typer.Exit(1)


def json_form(
    job: FlinkJob, balance: Balance, failure: JobFailure | None = None
) -> dict[str, object]:
    """The balance as a JSON object, with the failure that ended the job."""
    return {
        "job": job.name,
        "id": job.id,
        "state": job.state,
        "failure": failure._asdict() if failure else None,
        "balanced": balance.is_balanced,
        "in_flight": balance.in_flight,
        "gaps": list(balance.gaps),
        "steps": [asdict(row) for row in balance.rows],
    }


def summary(job: FlinkJob, balance: Balance, failure: JobFailure | None = None) -> list[str]:
    """One line for each gap, for the records in flight, the failure of the job, the result."""
    in_flight = [f"{row.step} {row.in_flight:,}" for row in balance.rows if row.in_flight]
    lines = [f"does not add up: {gap}" for gap in balance.gaps]
    if in_flight:
        where = "left in the last checkpoint" if job.state in ENDED else "in flight"
        lines.append(f"{where}: {', '.join(in_flight)}")
    if failure is not None:
        lines.append(f"it failed: {failure}; see `sage jobs show {job.name}`")
    result = "balanced" if balance.is_balanced else "not balanced"
    return [*lines, f"the record counts of {job.name} ({job.state}) are {result}"]


def _print_counts(balance: Balance) -> None:
    merges = any(row.merged for row in balance.rows)
    columns = [column for column in COLUMNS if merges or column != "merged"]
    counts = table("step", numbers=[column.replace("_", " ") for column in columns])
    for row in balance.rows:
        cells = (getattr(row, column) for column in columns)
        counts.add_row(row.step, *("" if cell is None else f"{cell:,}" for cell in cells))
    print_table(counts)
