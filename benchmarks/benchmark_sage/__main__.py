"""``python -m benchmark_sage list | run B6 | report``: needs the local stack (``sage up``)."""

import inspect
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmark_sage import (
    b1_ingest,
    b2_real,
    b2_saturate,
    b3_trickle,
    b4_gateway,
    b5_real,
    b5_routing,
    b6_embed_milvus,
    b7_search,
    b8_time_series,
    b9_contention,
    b11_scheduler,
    b12_path_cost,
    b_scale,
    consistency,
    memo,
    retrieval,
    state,
)
from benchmark_sage.results import RESULTS, Result
from sage_flink.common import ConfigError
from sage_flink.common.errors import StackError
from sage_jobs.entry import report_errors

BENCHMARKS: dict[str, tuple[str, Callable[..., Result]]] = {
    "B1": ("Kafka to Kafka in four topologies: records a second and a core", b1_ingest.run),
    "B2": ("a backlog, one call a record: busy slots over a direct client", b2_saturate.run),
    "B2-real": ("the same on llama.cpp: tokens a second over a direct client", b2_real.run),
    "B3": ("a trickle of records: milliseconds added to the call", b3_trickle.run),
    "B4": ("the cost of a proxy: milliseconds, requests a second, memory", b4_gateway.run),
    "B5": ("routing policies: time to the first token, cache hit rate", b5_routing.run),
    "B5-real": ("the same on llama.cpp", b5_real.run),
    "B6": ("texts embedded into Milvus: Flink job over a direct script", b6_embed_milvus.run),
    "B7": ("searches of a collection: milliseconds and searches over pymilvus", b7_search.run),
    "B8": ("points into InfluxDB: a core's, over influxdb-client's batching", b8_time_series.run),
    "B9": ("pipelines and users on one pool: users' p99, goodput, fairness", b9_contention.run),
    "B11": ("the gateway's scheduler alone: milliseconds a decision", b11_scheduler.run),
    "B12": ("what the stream costs: the main job with an instant engine", b12_path_cost.run),
    "consistency": (
        "reads during updates and kills: torn documents, vanished rows",
        consistency.run,
    ),
    "memo": ("what changed in documents: texts embedded again over changed chunks", memo.run),
    "retrieval": ("which passage is found first: vectors, words, hybrid", retrieval.run),
    "state": ("millions of keys in RocksDB: heap, checkpoints, a restart", state.run),
    "scale": ("replicas that follow a load, 1-3-1-0-1, and a slow Python step", b_scale.run),
}
app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
console = Console(highlight=False)


@app.command("list")
def list_benchmarks() -> None:
    """List the benchmarks."""
    for name, (what, _) in BENCHMARKS.items():
        console.print(f"{name}  {what}")


@app.command()
def run(
    benchmark: Annotated[str, typer.Argument(help="Such as B6.")],
    repeats: Annotated[int, typer.Option(min=1, help="Of each side, interleaved.")] = 5,
    records: Annotated[int | None, typer.Option(min=32, help="Records in one repeat.")] = None,
    quick: Annotated[bool, typer.Option(help="A short run, to see that it works.")] = False,
    peers: Annotated[
        str | None, typer.Option(help="Only these, as litellm,vllm-router; '' for none.")
    ] = None,
    before: Annotated[
        Path | None, typer.Option(help="Another checkout that is set up: its gateway runs beside.")
    ] = None,
    into: Annotated[Path, typer.Option(help="Folder of the result file.")] = RESULTS,
) -> None:
    """Run a benchmark and save its result file."""
    if benchmark not in BENCHMARKS:
        raise ConfigError(f"no benchmark {benchmark!r}; there are: {', '.join(BENCHMARKS)}")
    measure = BENCHMARKS[benchmark][1]
    asked: dict[str, Any] = {"records": records, "quick": quick or None, "before": before}
    asked["peers"] = None if peers is None else tuple(filter(None, peers.split(",")))
    wanted = {name: value for name, value in asked.items() if value is not None}
    if unknown := wanted.keys() - inspect.signature(measure).parameters:
        raise ConfigError(f"{benchmark} takes no --{' --'.join(sorted(unknown))}")
    kept = measure(repeats=repeats, **wanted)
    if not kept.headline:
        raise StackError(f"{benchmark}: no side has a figure; mend what the lines above say")
    console.print(f"kept in {kept.save(into)}")
    report(into)


@app.command()
def report(folder: Annotated[Path, typer.Option(help="Of result files.")] = RESULTS) -> None:
    """Print the headline of every result file."""
    table = Table("id", "metric", "value", "spread", "floor", "moonshot", box=None)
    for path in sorted(folder.glob("*.json")):
        kept = json.loads(path.read_text())
        for h in kept["headline"]:
            low, high = h["spread"]
            row = (kept["id"], h["metric"], f"{h['value']:.3f}", f"{low:.3f}-{high:.3f}")
            table.add_row(*row, f"{h['floor']:g}", f"{h['moonshot']:g}")
    console.print(table)


if __name__ == "__main__":
    # Its servers and jobs end with it, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with report_errors("benchmark_sage"):
        app()
