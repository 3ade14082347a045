"""``sage jobs`` stop, rescale and savepoints: the commands about a job's state."""

from datetime import datetime
from typing import Annotated

import typer
from rich.text import Text

from sage_flink.cli.jobs import JOB_ID, flink_url
from sage_flink.cli.output import AsJson, console, print_json, print_table, table
from sage_flink.common import ConfigError
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.savepoints import drain, folders_of, list_states, stop_with_savepoint

JobName = Annotated[str, typer.Argument(metavar="JOB", help="A job's name or id.")]


def stop(
    job: JobName,
    savepoint: Annotated[
        bool, typer.Option("--savepoint", help="Stop now and keep the state in a savepoint.")
    ] = False,
    to: Annotated[str, typer.Option(metavar="DIR", help="The folder of the savepoint.")] = "",
) -> None:
    """Stop a job after it has written everything it read; a new job loses no records.

    With --savepoint it stops now, and its records in flight are kept in the
    savepoint: submit the pipeline with --from-savepoint to continue from it.
    """
    if to and not savepoint:
        raise ConfigError("--to is the folder of a savepoint: give --savepoint as well")
    with FlinkRest(flink_url()) as rest:
        running = rest.job(job)
        with console.status(Text(f"stopping {running.name}")) as status:
            if not savepoint:
                drain(rest, running)
            else:
                path = stop_with_savepoint(
                    rest,
                    running,
                    to=to,
                    on_progress=lambda seconds: status.update(
                        Text(f"{running.name}: savepoint, {seconds}")
                    ),
                )
    console.print(f"{running.name} stopped")
    if savepoint:
        console.out(path, highlight=False)  # on one line, however narrow the terminal is


def rescale(
    job: JobName, parallelism: Annotated[int, typer.Argument(metavar="N", min=1, max=128)]
) -> None:
    """Give each step of a running job N subtasks, from its next checkpoint on."""
    with FlinkRest(flink_url()) as rest:
        running = rest.job(job)
        with console.status(Text(f"rescaling {running.name}")):
            rest.rescale(running.id, parallelism)
    console.print(f"{running.name} runs at parallelism {parallelism}")


def savepoints(job: JobName, as_json: AsJson = False) -> None:
    """List the savepoints and retained checkpoints of a job, newest first."""
    with FlinkRest(flink_url()) as rest:
        name = rest.job(job).name if JOB_ID.fullmatch(job) else job
        states = list_states(folders_of(name, rest))
    if as_json:
        print_json(states)
        return
    rows = table("taken", "kind", "path")
    for state in states:
        taken = datetime.fromtimestamp(state.taken_s).astimezone().isoformat(" ", "seconds")
        rows.add_row(taken, state.kind, state.path)
    empty = f"{name} has none; make one with `sage jobs stop {name} --savepoint`"
    print_table(rows, empty, wide=True)
