"""``sage jobs``: submit, list, account for and cancel Flink jobs."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from sage_flink.cli import account as accounts
from sage_flink.cli import pipelines
from sage_flink.cli.pipelines import YAML
from sage_flink.cli.shown import AsJson, console
from sage_flink.common import ConfigError, Settings, sage_home
from sage_flink.platform.flink_rest import ENDED, FlinkRest
from sage_jobs import entry

#: Below so much room a failed checkpoint is put down to the disk.
FREE_MIB_MIN = 64
JOB_ID = re.compile(r"[0-9a-f]{32}")

app = typer.Typer(help="Flink jobs: submit, list, account, stop, rescale.", no_args_is_help=True)


# What comes after the pipeline, `--help` too, is the job's own; so nothing here is an option.
@app.command(
    "submit",
    add_help_option=False,
    context_settings={
        "allow_extra_args": True,
        "allow_interspersed_args": False,
        "ignore_unknown_options": True,
    },
)
def submit(
    context: typer.Context,
    pipeline: Annotated[str, typer.Argument(help="A job of sage_jobs, a .py or a YAML file.")],
) -> None:
    """Start a pipeline as a Flink job.

    Options after the pipeline go to it: `sage jobs submit rag_ingest --help` lists them. All jobs
    of sage know --parallelism, --from-savepoint and --drop-state.
    """
    if pipeline == "--help":
        print(context.get_help())
    elif pipeline.startswith("-"):
        raise ConfigError(f"the pipeline comes first, then its options; got {pipeline!r}")
    elif pipeline.endswith(YAML):
        _submit_yaml(pipeline, context.args)
    else:
        _submit_program(pipeline, context.args)


@app.command("list")
def list_jobs(
    as_json: AsJson = False,
    every: Annotated[bool, typer.Option("--all", help="Ended jobs as well.")] = False,
) -> None:
    """List the jobs of the cluster, newest first."""
    with FlinkRest(flink_url()) as rest:
        found = [job for job in rest.jobs() if every or job.state not in ENDED]
        alarms = {job.id: _alarm(rest, job.id) for job in found}
    if as_json:
        rows = [msgspec.to_builtins(job) | {"alarm": alarms[job.id]} for job in found]
        print(json.dumps(rows))
        return
    table = Table("name", "state", "running s", "id", box=None)
    for job in found:
        table.add_row(job.name, job.state, f"{job.duration_ms / 1000:.0f}", job.id)
    console.print(table if found else "no jobs; start one with `sage jobs submit rag_ingest`")
    for job in found:
        if why := alarms[job.id]:
            told = f" checkpoints fail, what it writes exactly once stays invisible: {why}"
            console.print(Text.assemble((f"{job.name}:", "red"), told), soft_wrap=True)


def _alarm(rest: FlinkRest, job_id: str) -> str:
    """Why the job's checkpoints fail, with the disk where that is full; empty while they do not."""
    why = rest.alarm(job_id)
    folder = sage_home() / "data" / "flink" / "checkpoints"
    if not why or not folder.exists():
        return why
    free_mib = shutil.disk_usage(folder).free / 2**20
    full = f" {folder} has {free_mib:.0f} MiB free: make room." if free_mib < FREE_MIB_MIN else ""
    return f"{why}{full} See `sage logs flink`"


@app.command()
def account(
    job: Annotated[str, typer.Argument(help="A job's name or id.")],
    as_json: AsJson = False,
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds until it closes.")] = 15,
) -> None:
    """Show what each step read, emitted, wrote and dead-lettered; 1 when it does not add up.

    The counts are those of the last checkpoint; of a job that has ended, the last.
    """
    with FlinkRest(flink_url()) as rest:
        accounts.show(rest, job, wait_s=wait_s, as_json=as_json)


@app.command()
def cancel(job: Annotated[str, typer.Argument(help="A job's name or id.")]) -> None:
    """End a job now; what was in flight is dropped. `stop` loses nothing."""
    with FlinkRest(flink_url()) as rest:
        found = rest.job(job)
        with console.status(Text(f"{found.name} is being cancelled")):
            rest.cancel(found.id)
    console.print(f"{found.name} cancelled")


def _submit_yaml(path: str, words: list[str]) -> None:
    def submitted(name: str = Path(path).stem, options: Any = None) -> None:
        """Start the pipeline of the YAML file as a Flink job."""
        from sage_flink import flow

        graph = pipelines.graph(path)
        flink_url()
        _say_submitted(flow.submit(graph, name=name, options=options))

    entry.run(submitted, words, program=f"sage jobs submit {path}")


def _submit_program(pipeline: str, options: list[str]) -> None:
    """A job is its own process: PyFlink keeps one JVM a process, and a job may call it as it likes.

    It says itself what is wrong, so its words and its status are passed on as they are.
    """
    program = pipeline.endswith(".py")
    if not program:
        pipelines.job(pipeline)
    command = [sys.executable, *([pipeline] if program else ["-m", f"sage_jobs.{pipeline}"])]
    if "--help" in options:
        raise typer.Exit(subprocess.run([*command, *options], check=False).returncode)
    if not program:
        flink_url()
    with console.status(Text(f"submitting {pipeline}")):
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    *said, last = done.stdout.splitlines() or [""]
    if done.returncode:
        print(done.stdout, end="")
        print(done.stderr, end="", file=sys.stderr)
        raise typer.Exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
    if not JOB_ID.fullmatch(last.strip()):
        print(done.stdout, end="")
        return
    for line in said:
        print(line)
    _say_submitted(last.strip())


def _say_submitted(job_id: str) -> None:
    print(f"job {job_id}; see {Settings.load().flink_url}/#/job/running/{job_id}")


def flink_url() -> str:
    """The cluster of this stack, or the one that is named; never a stranger's on the usual port."""
    if "SAGE_FLINK_URL" not in os.environ and not (sage_home() / "stack.json").exists():
        raise ConfigError(f"no stack in {sage_home()}; run `sage up`, or set SAGE_FLINK_URL")
    return Settings.load().flink_url
