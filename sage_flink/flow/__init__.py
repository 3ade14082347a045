"""sage.flow: pipelines as values, and their two targets.

``submit`` starts a graph as a Flink job, ``run`` runs it in this process.
"""

from typing import TYPE_CHECKING, Any

from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.call_options import Admission, Batching, Merging, Retry
from sage_flink.flow.call_ports import Pool, Reply
from sage_flink.flow.check import check
from sage_flink.flow.explain import explain
from sage_flink.flow.graph import Batch, Call, FlatMap, Graph, Node, Read, Union, Write
from sage_flink.flow.local.outcome import Outcome
from sage_flink.flow.local.runner import run
from sage_flink.flow.pipelines import pipeline
from sage_flink.flow.ports import BatchLimits, OpenContext, Refusal, Sink, Source, Writer
from sage_flink.flow.stateful.aggregates import (
    Collect,
    Count,
    CountDistinct,
    First,
    Last,
    Max,
    Mean,
    Min,
    Quantile,
    Stddev,
    Sum,
    Top,
)
from sage_flink.flow.stateful.broadcasts import BroadcastJoin
from sage_flink.flow.stateful.joins import Join, TemporalJoin
from sage_flink.flow.stateful.keyed_nodes import ChangesOnly, Fold, RateLimit
from sage_flink.flow.stateful.nearest import Nearest
from sage_flink.flow.stateful.nodes import (
    Deduplicate,
    EventTime,
    KeyBy,
    Late,
    ProcessingTime,
    Window,
)
from sage_flink.flow.stateful.similar import Similar
from sage_flink.flow.stateful.windows import (
    CountTumbling,
    Early,
    Global,
    Session,
    Sliding,
    Tumbling,
)
from sage_flink.flow.stream import Stream, read, union
from sage_flink.flow.yaml_form import from_yaml, to_yaml, vocabulary, yaml_errors
from sage_flink.flow.yaml_schema import yaml_schema

if TYPE_CHECKING:
    from sage_flink.flow.flink.submit import submit
    from sage_flink.platform.cluster import FlinkOptions, StepOptions

__all__ = [
    "Admission",
    "Batch",
    "BatchLimits",
    "Batching",
    "BroadcastJoin",
    "Call",
    "ChangesOnly",
    "Collect",
    "Count",
    "CountDistinct",
    "CountTumbling",
    "Deduplicate",
    "Early",
    "EventTime",
    "First",
    "FlatMap",
    "FlinkOptions",
    "Fold",
    "Global",
    "Graph",
    "Join",
    "KeyBy",
    "Last",
    "Late",
    "MapBatches",
    "Max",
    "Mean",
    "Merging",
    "Min",
    "Nearest",
    "Node",
    "OpenContext",
    "Outcome",
    "Pool",
    "ProcessingTime",
    "Quantile",
    "RateLimit",
    "Read",
    "Refusal",
    "Reply",
    "Retry",
    "Session",
    "Similar",
    "Sink",
    "Sliding",
    "Source",
    "Stddev",
    "StepOptions",
    "Stream",
    "Sum",
    "TemporalJoin",
    "Top",
    "Tumbling",
    "Union",
    "Window",
    "Write",
    "Writer",
    "check",
    "explain",
    "from_yaml",
    "pipeline",
    "read",
    "run",
    "submit",
    "to_yaml",
    "union",
    "vocabulary",
    "yaml_errors",
    "yaml_schema",
]


def __getattr__(name: str) -> Any:
    """PyFlink is loaded by the first use of ``submit``, not by building a graph."""
    if name in {"submit", "FlinkOptions", "StepOptions"}:
        try:
            from sage_flink.flow.flink import submit
            from sage_flink.platform import cluster
        except ModuleNotFoundError as error:
            from sage_flink.common.errors import ConfigError

            raise ConfigError(
                "Flink's Python package is missing: pip install 'sage-flink[flink]'"
            ) from error
        return submit.submit if name == "submit" else getattr(cluster, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
