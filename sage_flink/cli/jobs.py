"""``sage jobs``: submit, list and cancel Flink jobs, and check their record counts."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from sage_flink.cli import job_balance, pipelines
from sage_flink.cli.job_health import health_of
from sage_flink.cli.output import AsJson, console, print_json, print_table, table
from sage_flink.common import ConfigError, Settings, sage_home
from sage_flink.platform.doctor.jobs import is_of_interest
from sage_flink.platform.flink_rest import FlinkRest
from sage_jobs import entry

JOB_ID = re.compile(r"[0-9a-f]{32}")

app = typer.Typer(help="Flink jobs: submit, list, account, stop, rescale.", no_args_is_help=True)


# All arguments after the pipeline, `--help` too, belong to the job, so submit has no options.
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

    A .py file has a function build() that returns the graph; if it has a main part as well, it is
    run as a program and submits itself. `sage explain` takes the same three kinds.

    Options after the pipeline go to it: `sage jobs submit rag_ingest --help` lists them. All jobs
    of sage know --parallelism, --from-savepoint and --drop-state.
    """
    if pipeline == "--help":
        print(context.get_help())
    elif pipeline.startswith("-"):
        raise ConfigError(f"give the pipeline first, then its options; got {pipeline!r}")
    elif _is_program(pipeline):
        _submit_program(pipeline, context.args)
    else:
        _submit_graph(pipeline, context.args)


@app.command("list")
def list_jobs(
    as_json: AsJson = False,
    all_jobs: Annotated[bool, typer.Option("--all", help="All ended jobs as well.")] = False,
) -> None:
    """List the jobs of the cluster, newest first, and those that failed in the last hour."""
    with FlinkRest(flink_url()) as rest:
        jobs = [job for job in rest.jobs() if all_jobs or is_of_interest(job, time.time())]
        healths = [health_of(rest, job) for job in jobs]
    if as_json:
        print_json([health.fields() for health in healths])
        return
    rows = table("name", "state", numbers=("running s", "restarts"))
    rows.add_column("id", overflow="fold")
    for job, health in zip(jobs, healths, strict=True):
        seconds = f"{job.duration_ms / 1000:.0f}"
        rows.add_row(job.name, job.state, seconds, str(health.restarts), job.id)
    print_table(rows, empty="no jobs; start one with `sage jobs submit rag_ingest`")
    for health in healths:
        for warning in health.warnings(time.time()):
            named = Text.assemble((f"{health.job.name}:", "red"), f" {warning}")
            console.print(named, soft_wrap=True)


@app.command()
def show(
    job: Annotated[str, typer.Argument(help="A job's name or id.")], as_json: AsJson = False
) -> None:
    """Show a job: its state, why it failed last, its checkpoints, and what to do."""
    with FlinkRest(flink_url()) as rest:
        health = health_of(rest, rest.job(job))
    if as_json:
        print_json(health.fields())
        return
    rows = table("", "")
    rows.show_header = False
    for name, value in health.lines(time.time(), flink_url()):
        rows.add_row(name, value)
    print_table(rows)


@app.command()
def account(
    job: Annotated[str, typer.Argument(help="A job's name or id.")],
    as_json: AsJson = False,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait until it is balanced.")
    ] = 15,
) -> None:
    """Show how many records each step read, emitted, wrote and dead-lettered.

    Exits with 1 when the counts are not balanced. They are those of the last
    checkpoint, or the final ones of a job that has ended.
    """
    with FlinkRest(flink_url()) as rest:
        job_balance.show(rest, job, wait_s=wait_s, as_json=as_json)


@app.command()
def cancel(job: Annotated[str, typer.Argument(help="A job's name or id.")]) -> None:
    """Cancel a job now and drop its records in flight; `stop` loses no records."""
    with FlinkRest(flink_url()) as rest:
        running = rest.job(job)
        with console.status(Text(f"cancelling {running.name}")):
            rest.cancel(running.id)
        state = rest.job(running.id).state
    how = "cancelled" if state == "CANCELED" else f"had ended before ({state.lower()})"
    console.print(f"{running.name} {how}")


def _submit_graph(pipeline: str, words: list[str]) -> None:
    def main(name: str = Path(pipeline).stem, options: Any = None) -> None:
        """Start the pipeline of the file as a Flink job."""
        from sage_flink import flow

        graph = pipelines.load(pipeline)
        flink_url()
        with pipelines.errors_in(pipeline):
            job_id = flow.submit(graph, name=name, options=options)
        _print_submitted(job_id)

    entry.run(main, words, program=f"sage jobs submit {pipeline}")


def _is_program(pipeline: str) -> bool:
    """Whether the pipeline submits itself: a job of sage_jobs, or a .py with a main part."""
    if not pipeline.endswith(pipelines.FILES):
        return True
    return pipeline.endswith(".py") and "__main__" in pipelines.read_text(pipeline)


def _submit_program(pipeline: str, options: list[str]) -> None:
    """Run a job in its own process: PyFlink has one JVM a process, and a job may have its own name.

    The job reports its own errors, so its output and exit status are passed on unchanged.
    """
    is_file = pipeline.endswith(".py")
    if not is_file:
        pipelines.job(pipeline)
    command = [sys.executable, *([pipeline] if is_file else ["-m", f"sage_jobs.{pipeline}"])]
    if "--help" in options:
        raise typer.Exit(subprocess.run([*command, *options], check=False).returncode)
    if not is_file:
        flink_url()
    with console.status(Text(f"submitting {pipeline}")):
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    *lines, last = done.stdout.splitlines() or [""]
    if done.returncode:
        print(done.stdout, end="")
        print(done.stderr, end="", file=sys.stderr)
        raise typer.Exit(done.returncode if done.returncode > 0 else 128 - done.returncode)
    if not JOB_ID.fullmatch(last.strip()):
        print(done.stdout, end="")
        return
    for line in lines:
        print(line)
    _print_submitted(last.strip())


def _print_submitted(job_id: str) -> None:
    print(f"job {job_id}; see {Settings.load().flink_url}/#/job/running/{job_id}")


def flink_url() -> str:
    """The address of this stack's cluster, or SAGE_FLINK_URL; never another one's default port."""
    if "SAGE_FLINK_URL" not in os.environ and not (sage_home() / "stack.json").exists():
        raise ConfigError(f"no stack in {sage_home()}; run `sage up`, or set SAGE_FLINK_URL")
    return Settings.load().flink_url
