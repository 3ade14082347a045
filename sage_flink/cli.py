"""The ``sage`` command: the local stack and the jobs on it."""

import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sage_flink.common import ConfigError, Settings, sage_home
from sage_flink.platform import stack
from sage_flink.platform.flink_rest import ENDED, FlinkRest
from sage_flink.platform.stack.parts import FLINK, PARTS, select
from sage_jobs.entry import told

NAMES = f"{', '.join(PARTS)}; flink for both of Flink's"
YAML = (".yaml", ".yml")
JOB_ID = re.compile(r"[0-9a-f]{32}")

app = typer.Typer(no_args_is_help=True, add_completion=False)
jobs = typer.Typer(help="Flink jobs: submit, list, cancel.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")
# No markup: names and messages hold brackets.
console = Console(highlight=False, markup=False, emoji=False)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Run the command line; a SageError becomes one message and exit status 2."""
    with told("sage"):
        app()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"sage {version('sage-flink')}")
        raise typer.Exit


@app.callback()
def sage(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print it.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Streaming for AI on Apache Flink: the local stack, and the jobs on it."""


@app.command()
def up(
    only: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PART]...", help=f"All by default, or: {NAMES}."),
    ] = None,
) -> None:
    """Start the local stack and wait until it is ready."""
    stack.up(sage_home(), only=frozenset(only) if only else None)


@app.command()
def down() -> None:
    """Stop the local stack; no process and no open port stays."""
    stopped = stack.down(sage_home())
    console.print(f"stopped: {', '.join(stopped)}" if stopped else "nothing was running")


@app.command()
def ps(as_json: AsJson = False) -> None:
    """Show each part: state, process, memory, uptime, address."""
    parts = stack.status(sage_home())
    if as_json:
        print(json.dumps(msgspec.to_builtins(parts, enc_hook=str)))  # the log's path
        return
    table = Table("part", "state", "pid", "rss MiB", "up s", "address", box=None)
    for p in parts:
        pid, rss, seconds = p.pid or "", f"{p.rss_mib:.0f}", f"{p.uptime_s:.0f}"
        table.add_row(p.name, p.state, str(pid), rss, seconds, p.url or "")
    console.print(table)
    for p in parts:
        if p.hint:
            console.print(Text.assemble((f"{p.name}:", "yellow"), f" {p.hint}"), soft_wrap=True)
    if all(p.state == "stopped" for p in parts):
        console.print("nothing runs; start with `sage up`")


@app.command()
def logs(
    name: Annotated[str, typer.Argument(metavar="PART", help=f"{NAMES}; supervisord.")],
    lines: Annotated[int, typer.Option("-n", help="How many lines.", min=1)] = 50,
    follow: Annotated[bool, typer.Option("-f", help="Go on as the file grows.")] = False,
) -> None:
    """Print the end of a part's log."""
    names = FLINK if name == "flink" else (name,)
    for line in _tail([stack.log_path(sage_home(), part) for part in names], lines, follow):
        print(line, end="", flush=follow)


@app.command()
def url(name: Annotated[str, typer.Argument(metavar="PART", help=f"{NAMES}.")]) -> None:
    """Print the address of a part, for scripts."""
    settings = Settings.load()
    (part, *_) = select([name])
    known = {
        "kafka": settings.kafka_servers,
        "jobmanager": settings.flink_url,
        "milvus": settings.milvus_url,
        "influxdb": settings.influxdb_url,
        "gateway": settings.gateway_url,
    }
    print(known[part])


@app.command()
def explain(
    pipeline: Annotated[str, typer.Argument(help="A job of sage_jobs, or a YAML file.")],
    form: Annotated[str, typer.Option(help="text, mermaid or yaml.")] = "text",
) -> None:
    """Draw a pipeline; starts nothing."""
    from sage_flink import flow

    graph = _graph(pipeline)
    if form == "yaml":
        print(flow.to_yaml(graph, _words()), end="")
    elif form in ("text", "mermaid"):
        drawn: Literal["text", "mermaid"] = "mermaid" if form == "mermaid" else "text"
        print(flow.explain(graph, drawn))
    else:
        raise ConfigError(f"--form must be text, mermaid or yaml, got {form!r}")


# What comes after the pipeline, `--help` too, is the job's own; so nothing here is an option.
@jobs.command(
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


@jobs.command("list")
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


@jobs.command()
def stop(job: Annotated[str, typer.Argument(help="A job's name or id.")]) -> None:
    """Stop a job once all that it has read is written; a new one loses nothing."""
    _end(job, FlinkRest.drain, "stopped")


@jobs.command()
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
    def submitted(name: str = Path(path).stem, parallelism: int = 1) -> None:
        """Start the pipeline of the YAML file as a Flink job."""
        from sage_flink import flow

        graph = _graph(path)
        _flink_url()
        _say_submitted(
            flow.submit(graph, name=name, options=flow.FlinkOptions(parallelism=parallelism))
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
        _job(pipeline)
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


def _graph(pipeline: str) -> Any:
    if pipeline.endswith(YAML):
        from sage_flink import flow

        return flow.from_yaml(_text(pipeline), _words())
    return _job(pipeline).build()


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(
            f"{path}: {said}; give the path of a YAML file, or a job: {', '.join(_jobs())}"
        ) from error


def _job(name: str) -> Any:
    if name not in _jobs():
        raise ConfigError(
            f"no job {name!r}; give one of {', '.join(_jobs())}, or the path of a YAML file"
        )
    try:
        return importlib.import_module(f"sage_jobs.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"job {name!r} needs {error.name}, which is not installed: "
            "pip install 'sage-flink[flink]', or `bash infra/setup.sh` in a checkout"
        ) from error


def _jobs() -> list[str]:
    """The modules of sage_jobs that have a ``build``; found without loading them."""
    import sage_jobs

    modules = Path(sage_jobs.__path__[0]).glob("*.py")
    return sorted(path.stem for path in modules if "\ndef build(" in path.read_text())


def _words() -> Any:
    import sage_connectors
    from sage_flink import db, flow, inference, operators, tsdb

    return flow.vocabulary(sage_connectors, db, tsdb, inference, operators)


def _tail(paths: Sequence[Path], lines: int, follow: bool) -> Iterator[str]:
    """The last lines of each file, under its name where there are several; then what comes."""
    with ExitStack() as opened:
        files: list[TextIO] = [opened.enter_context(p.open(errors="replace")) for p in paths]
        for path, file in zip(paths, files, strict=True):
            if len(paths) > 1:
                yield f"==> {path.stem} <==\n"
            yield from deque(file, lines)
        while follow:
            came = [line for file in files if (line := file.readline())]
            yield from came
            if not came:
                time.sleep(0.2)


if __name__ == "__main__":
    main()
