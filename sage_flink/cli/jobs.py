"""``sage jobs``: submit, list, stop and cancel Flink jobs."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from sage_flink.cli import pipelines
from sage_flink.cli.pipelines import YAML
from sage_flink.cli.shown import AsJson, console
from sage_flink.common import ConfigError, Settings, sage_home
from sage_flink.platform.flink_rest import ENDED, FlinkRest

Calls = Literal["native", "python"]
JOB_ID = re.compile(r"[0-9a-f]{32}")

app = typer.Typer(help="Flink jobs: submit, list, cancel.", no_args_is_help=True)


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

    Options after the pipeline go to it: `sage jobs submit rag_ingest --help` lists them.
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
    with FlinkRest(_flink_url()) as rest:
        found = [job for job in rest.jobs() if every or job.state not in ENDED]
    if as_json:
        print(json.dumps(msgspec.to_builtins(found)))
        return
    table = Table("name", "state", "running s", "id", box=None)
    for job in found:
        table.add_row(job.name, job.state, f"{job.duration_ms / 1000:.0f}", job.id)
    console.print(table if found else "no jobs; start one with `sage jobs submit rag_ingest`")


@app.command()
def stop(job: Annotated[str, typer.Argument(help="A job's name or id.")]) -> None:
    """Stop a job once all that it has read is written; a new one loses nothing."""
    _end(job, FlinkRest.drain, "stopped")


@app.command()
def cancel(job: Annotated[str, typer.Argument(help="A job's name or id.")]) -> None:
    """End a job now; what was in flight is dropped. `stop` loses nothing."""
    _end(job, FlinkRest.cancel, "cancelled")


def _end(job: str, end: Callable[[FlinkRest, str], None], done: str) -> None:
    with FlinkRest(_flink_url()) as rest:
        found = rest.job(job)
        with console.status(Text(f"{found.name} is being {done}")):
            end(rest, found.id)
    console.print(f"{found.name} {done}")


def _submit_yaml(path: str, options: list[str]) -> None:
    def submitted(
        name: str = Path(path).stem, parallelism: int = 1, calls: Calls = "native"
    ) -> None:
        """Start the pipeline of the YAML file as a Flink job."""
        from sage_flink import flow

        graph = pipelines.graph(path)
        _flink_url()
        _say_submitted(
            flow.submit(
                graph,
                name=name,
                options=flow.FlinkOptions(parallelism=parallelism, calls=calls),
            )
        )

    command = typer.Typer(add_completion=False)
    command.command()(submitted)
    command(options, prog_name=f"sage jobs submit {path}")


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
        _flink_url()
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


def _flink_url() -> str:
    """The cluster of this stack, or the one that is named; never a stranger's on the usual port."""
    if "SAGE_FLINK_URL" not in os.environ and not (sage_home() / "stack.json").exists():
        raise ConfigError(f"no stack in {sage_home()}; run `sage up`, or set SAGE_FLINK_URL")
    return Settings.load().flink_url
