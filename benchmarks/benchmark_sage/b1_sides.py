"""The sides of B1: each starts from the work of one run, and is a job on the stack or a process."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from benchmark_sage import b1_topologies
from benchmark_sage.b1_workload import IngestWork
from benchmark_sage.proxies import environment
from benchmark_sage.sides import PEERS, RunningSide, flink_run, running_job, running_script
from sage_flink.common import Settings
from sage_flink.flow import FlinkOptions, submit


class IngestSide(NamedTuple):
    """How a side starts, and what part of the records it gets: slow ones fewer."""

    start: Callable[[IngestWork], RunningSide]
    divisor: int = 1
    on_flink: bool = True


def _sage(work: IngestWork, *, native: bool) -> RunningSide:
    graph = b1_topologies.build(work, native=native)
    return running_job(Settings.load(), submit(graph, name=work.out, options=options()))


def _flink_sql(work: IngestWork) -> RunningSide:
    from benchmark_sage.peers.flink_sql import statements, submit_sql  # loads PyFlink

    job_id = submit_sql(statements(work), name=work.out, options=options())
    return running_job(Settings.load(), job_id)


def _pyflink(work: IngestWork, options: Sequence[str] = ()) -> RunningSide:
    return flink_run("pyflink_ingest", _json(work), options)


def _alone(work: IngestWork, *, peer: str) -> RunningSide:
    """A process of the peers' environment; its state is in a folder that ends with it."""
    python = environment("quix-bytewax") / "python"
    folder = tempfile.TemporaryDirectory(prefix="b1-")
    script = str(PEERS / f"{peer}.py")
    running = running_script(peer, str(python), script, _json(work), folder.name)

    def stop() -> None:
        running.stop()
        folder.cleanup()

    return replace(running, stop=stop)


def _json(work: IngestWork) -> str:
    return msgspec.json.encode(work).decode()


def options() -> FlinkOptions:
    """The options of every job on Flink: parallelism 1, and results once at the next checkpoint."""
    return FlinkOptions(checkpoint_interval_s=5.0)


#: By default a Python worker caches 1,000 states, and asks the JVM for each other one: with 10,000
#: keys that are as frequent as each other it asks for nearly all.
CACHED = (
    "-Dpython.state.cache-size=40000",
    "-Dpython.map-state.read-cache-size=40000",
    "-Dpython.map-state.write-cache-size=40000",
)
#: The limit first.
SIDES: Mapping[str, IngestSide] = MappingProxyType(
    {
        "flink_sql": IngestSide(_flink_sql),
        "sage": IngestSide(partial(_sage, native=True)),
        "sage_python": IngestSide(partial(_sage, native=False), divisor=4),
        "pyflink": IngestSide(_pyflink, divisor=12),
        "pyflink_cached": IngestSide(partial(_pyflink, options=CACHED), divisor=12),
        "quix": IngestSide(partial(_alone, peer="quix_ingest"), divisor=4, on_flink=False),
        "bytewax": IngestSide(partial(_alone, peer="bytewax_ingest"), on_flink=False),
    }
)
