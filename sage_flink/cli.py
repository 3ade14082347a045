"""The ``sage`` command: the local stack and the jobs on it."""

import importlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from sage_flink.common import ConfigError, PipelineError, SageError, Settings, sage_home
from sage_flink.platform import stack
from sage_flink.platform.flink_rest import ENDED, FlinkRest

app = typer.Typer(
    help="sage: streaming for AI on Apache Flink.", no_args_is_help=True, add_completion=False
)
jobs = typer.Typer(help="Flink jobs: submit, list, cancel.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")
console = Console()
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Run the command line; a SageError becomes one message and an exit status."""
    try:
        app()
    except SageError as error:
        Console(stderr=True).print(f"[bold red]sage:[/] {error}", highlight=False)
        raise SystemExit(2 if isinstance(error, ConfigError | PipelineError) else 1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@app.command()
def up(
    only: Annotated[
        list[str] | None, typer.Argument(help="Parts to start; all when none is named.")
    ] = None,
) -> None:
    """Start the local stack: Kafka, Flink, Milvus, InfluxDB, the gateway and its engines."""
    stack.up(sage_home(), only=frozenset(only) if only else None)


@app.command()
def down() -> None:
    """Stop the local stack; no process and no open port stays behind."""
    stack.down(sage_home())


@app.command()
def ps(as_json: AsJson = False) -> None:
    """Show each part of the stack: state, ports, memory, log."""
    parts = stack.status(sage_home())
    if as_json:
        print(json.dumps(msgspec.to_builtins(parts)))
        return
    table = Table("part", "state", "pid", "rss MiB", "up s", "address", box=None)
    for p in parts:
        pid, rss, seconds = p.pid or "", f"{p.rss_mib:.0f}", f"{p.uptime_s:.0f}"
        table.add_row(p.name, p.state, str(pid), rss, seconds, p.url or "")
    console.print(table)
    for p in parts:
        if p.hint:
            console.print(f"[yellow]{p.name}:[/] {p.hint}")


@app.command()
def logs(
    name: Annotated[str, typer.Argument(help="A part, as `sage ps` names it.")],
    lines: Annotated[int, typer.Option("-n", help="How many lines.", min=1)] = 50,
    follow: Annotated[bool, typer.Option("-f", help="Go on as the file grows.")] = False,
) -> None:
    """Print the end of a part's log."""
    path = stack.log_path(sage_home(), name)
    for line in _tail(path, lines, follow):
        print(line, end="", flush=follow)


@app.command()
def url(
    name: Annotated[str, typer.Argument(help="gateway, flink, milvus, influxdb or kafka.")],
) -> None:
    """Print the address of a part, for scripts."""
    settings = Settings.load()
    known = {
        "gateway": settings.gateway_url,
        "flink": settings.flink_url,
        "milvus": settings.milvus_url,
        "influxdb": settings.influxdb_url,
        "kafka": settings.kafka_servers,
    }
    if name not in known:
        raise ConfigError(f"no part {name!r}; there are: {', '.join(known)}")
    print(known[name])


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


@jobs.command("submit", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def submit(
    context: typer.Context,
    pipeline: Annotated[str, typer.Argument(help="A job of sage_jobs, a .py or a .yaml file.")],
) -> None:
    """Start a pipeline as a Flink job; options after the name go to the job (`--help` there)."""
    if pipeline.endswith((".yaml", ".yml")):
        from sage_flink import flow

        job_id = flow.submit(_graph(pipeline), name=Path(pipeline).stem)
    else:
        what = [pipeline] if pipeline.endswith(".py") else ["-m", f"sage_jobs.{pipeline}"]
        if not pipeline.endswith(".py"):
            _module(pipeline)
        with console.status(f"submitting {pipeline}"):
            done = subprocess.run(
                [sys.executable, *what, *context.args], capture_output=True, text=True, check=False
            )
        if "--help" in context.args or done.returncode:
            print(done.stdout, end="")
        if done.returncode:
            raise PipelineError(f"{pipeline} was not submitted: {_last(done.stderr)}")
        job_id = _last(done.stdout)
    if "--help" not in context.args:
        console.print(f"job {job_id}; see {Settings.load().flink_url}/#/job/running/{job_id}")


@jobs.command("list")
def list_jobs(
    as_json: AsJson = False,
    every: Annotated[bool, typer.Option("--all", help="Ended jobs as well.")] = False,
) -> None:
    """List the jobs of the cluster, newest first."""
    found = [
        j for j in FlinkRest(Settings.load().flink_url).jobs() if every or j.state not in ENDED
    ]
    if as_json:
        print(json.dumps(msgspec.to_builtins(found)))
        return
    table = Table("name", "state", "running s", "id", box=None)
    for job in found:
        table.add_row(job.name, job.state, f"{job.duration_ms / 1000:.0f}", job.id)
    console.print(table if found else "no jobs; start one with `sage jobs submit rag_ingest`")


@jobs.command()
def cancel(job: Annotated[str, typer.Argument(help="A job's name or id.")]) -> None:
    """Cancel a job and wait until it has ended."""
    rest = FlinkRest(Settings.load().flink_url)
    found = rest.job(job)
    with console.status(f"cancelling {found.name}"):
        rest.cancel(found.id)
    console.print(f"{found.name} cancelled")


def _graph(pipeline: str) -> Any:
    if pipeline.endswith((".yaml", ".yml")):
        from sage_flink import flow

        try:
            return flow.from_yaml(Path(pipeline).read_text(), _words())
        except OSError as error:
            raise ConfigError(f"{pipeline}: {error.strerror}") from error
    return _module(pipeline).build()


def _module(name: str) -> Any:
    import sage_jobs

    known = sorted(p.stem for p in Path(sage_jobs.__path__[0]).glob("rag_*.py"))
    try:
        return importlib.import_module(f"sage_jobs.{name}")
    except ModuleNotFoundError as error:
        raise ConfigError(f"no job {name!r}; there are: {', '.join(known)}") from error


def _words() -> Any:
    import sage_connectors
    from sage_flink import db, flow, inference, operators, tsdb

    return flow.vocabulary(sage_connectors, db, tsdb, inference, operators)


def _last(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"


def _tail(path: Path, lines: int, follow: bool) -> Iterator[str]:
    with path.open(errors="replace") as log:
        yield from log.readlines()[-lines:]
        while follow:
            if line := log.readline():
                yield line
            else:
                time.sleep(0.2)


if __name__ == "__main__":
    main()
