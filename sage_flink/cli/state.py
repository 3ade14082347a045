"""``sage jobs`` stop, rescale, savepoints: what happens to a job's state."""

import json
from datetime import datetime
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from sage_flink.cli.jobs import JOB_ID, flink_url
from sage_flink.cli.shown import AsJson, console
from sage_flink.common import ConfigError
from sage_flink.platform.flink_rest import FlinkRest
from sage_flink.platform.savepoints import drain, folders_of, found, stop_with_savepoint

Named = Annotated[str, typer.Argument(metavar="JOB", help="A job's name or id.")]


def stop(
    job: Named,
    savepoint: Annotated[bool, typer.Option("--savepoint", help="Keep its state instead.")] = False,
    to: Annotated[str, typer.Option(metavar="DIR", help="Where the savepoint goes.")] = "",
) -> None:
    """Stop a job once all that it has read is written; a new one loses nothing.

    With --savepoint it stops at once, and what is in flight waits in the savepoint: submit the
    pipeline with --from-savepoint to go on from it.
    """
    if to and not savepoint:
        raise ConfigError("--to is where a savepoint goes: give --savepoint as well")
    with FlinkRest(flink_url()) as rest:
        running = rest.job(job)
        with console.status(Text(f"{running.name} is being stopped")) as status:
            if not savepoint:
                drain(rest, running)
            else:
                path = stop_with_savepoint(
                    rest,
                    running,
                    to=to,
                    told=lambda so_far: status.update(Text(f"{running.name}: savepoint, {so_far}")),
                )
    console.print(f"{running.name} stopped")
    if savepoint:
        console.out(path, highlight=False)  # whole, whatever the terminal's width


def rescale(
    job: Named, parallelism: Annotated[int, typer.Argument(metavar="N", min=1, max=128)]
) -> None:
    """Give each step of a running job N subtasks, from its next checkpoint on."""
    with FlinkRest(flink_url()) as rest:
        found = rest.job(job)
        with console.status(Text(f"{found.name} is being rescaled")):
            rest.rescale(found.id, parallelism)
    console.print(f"{found.name} runs at parallelism {parallelism}")


def savepoints(job: Named, as_json: AsJson = False) -> None:
    """List what a job can go on from, newest first: savepoints and last checkpoints."""
    with FlinkRest(flink_url()) as rest:
        name = rest.job(job).name if JOB_ID.fullmatch(job) else job
        listed = found(folders_of(name, rest))
    if as_json:
        print(json.dumps(msgspec.to_builtins(listed)))
        return
    for saved in listed:
        taken = datetime.fromtimestamp(saved.taken_s).astimezone().isoformat(" ", "seconds")
        console.out(f"{taken}  {saved.kind:<10}  {saved.path}", highlight=False)
    if not listed:
        console.print(f"none of {name}; make one with `sage jobs stop {name} --savepoint`")
