"""The sides of B1: each starts from the work of one run, and is a job on the stack or a process."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

from benchmark_sage import b1_topologies
from benchmark_sage.b1_workload import IngestWork
from benchmark_sage.sides import RunningSide, running_job
from sage_flink.common import Settings
from sage_flink.flow import FlinkOptions, submit


class IngestSide(NamedTuple):
    """How a side starts; sides whose records pass Python get fewer of them."""

    start: Callable[[IngestWork], RunningSide]
    in_python: bool = False
    on_flink: bool = True


def _sage(work: IngestWork, *, native: bool) -> RunningSide:
    graph = b1_topologies.build(work, native=native)
    return running_job(Settings.load(), submit(graph, name=work.out, options=options()))


def _flink_sql(work: IngestWork) -> RunningSide:
    from benchmark_sage.peers.flink_sql import statements, submit_sql  # loads PyFlink

    job_id = submit_sql(statements(work), name=work.out, options=options())
    return running_job(Settings.load(), job_id)


def options() -> FlinkOptions:
    """The options of every job on Flink: parallelism 1, and results once at the next checkpoint."""
    return FlinkOptions(checkpoint_interval_s=5.0)


#: The limit first.
SIDES: Mapping[str, IngestSide] = MappingProxyType(
    {
        "flink_sql": IngestSide(_flink_sql),
        "sage": IngestSide(partial(_sage, native=True)),
        "sage_python": IngestSide(partial(_sage, native=False), in_python=True),
    }
)
