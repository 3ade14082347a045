"""Command line ``sage``: the local stack, its jobs and the model pool. One module per group."""

from importlib.metadata import version
from typing import Annotated

import typer

from sage_flink.cli import (
    connections,
    db,
    dlq,
    doctor,
    jobs,
    pipelines,
    pool,
    stack,
    state,
    topics,
    tsdb,
    tsdb_tasks,
)
from sage_jobs.entry import report_errors

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False)
for command in (
    stack.up,
    stack.down,
    stack.ps,
    stack.logs,
    stack.url,
    pipelines.explain,
    pipelines.schema,
    doctor.doctor,
):
    app.command()(command)
for verb in (state.stop, state.rescale, state.savepoints):
    jobs.app.command()(verb)
app.add_typer(jobs.app, name="jobs")
app.add_typer(connections.app, name="connections")
app.add_typer(db.app, name="db")
app.add_typer(dlq.app, name="dlq")
app.add_typer(topics.app, name="topics")
app.add_typer(pool.app, name="pool")
tsdb.app.command()(tsdb_tasks.retention)
tsdb.app.add_typer(tsdb_tasks.app, name="tasks")
app.add_typer(tsdb.app, name="tsdb")


def main() -> None:
    """Run the command line; a SageError becomes one message and exit status 2."""
    with report_errors("sage"):
        app()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sage {version('sage-flink')}")
        raise typer.Exit


@app.callback()
def sage(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Streaming for AI on Apache Flink: the local stack, and the jobs on it."""
