"""Record accounting of a Flink job: record counters on its streams, and the operator of the sums.

A record counter follows each source and each Python stage, and precedes each batch and native sink.
With every checkpoint barrier it sends its counter delta to the one operator that holds the sums.
Record counters have no state and the sums are in one operator of a fixed name, so counts follow the
names of the steps through restarts, savepoints, another parallelism and a step added later.

Tried and rejected: counters of Flink's metrics (they restart at zero with the job), and a stateful
operator at each place (its state cannot follow a step that moves into another stage).
"""

from typing import assert_never

from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from sage_flink.flow.batch_maps import MapBatches
from sage_flink.flow.graph import (
    DEAD_LETTERS,
    Batch,
    Call,
    FlatMap,
    Graph,
    Node,
    Read,
    Union,
    Write,
)
from sage_flink.flow.stateful.broadcasts import BroadcastJoin
from sage_flink.flow.stateful.joins import Join, TemporalJoin
from sage_flink.flow.stateful.keyed_nodes import ChangesOnly, Fold, RateLimit
from sage_flink.flow.stateful.nodes import (
    Deduplicate,
    EventTime,
    KeyBy,
    Late,
    ProcessingTime,
    Window,
)
from sage_flink.platform.job_failures import COUNT
from sage_flink.platform.record_accounting import (
    STEPS,
    CountedStep,
    Kind,
    counter_name,
    counter_names,
    encode_steps,
)


class RecordAccounting:
    """The record counters of a job while it is compiled."""

    def __init__(self, graph: Graph) -> None:
        self.steps = steps(graph)
        self.deltas: list[DataStream] = []

    def count(self, stream: DataStream, node: str, *names: str) -> DataStream:
        """The stream, with each record counted in the counters ``names`` of the step ``node``."""
        return self.count_stage(stream, node, [counter_name(node, name) for name in names])

    def count_stage(self, stream: DataStream, name: str, names: list[str]) -> DataStream:
        """The stage's output without its counter deltas; each record is counted in ``names``."""
        native = get_gateway().jvm.org.sage.flink.counters.RecordCounterOperator
        counted = native.wire(stream._j_data_stream, f"{name}.tally", names)
        self.deltas.append(native.deltas(counted))
        return DataStream(counted).name(COUNT)

    def wire(self, env: StreamExecutionEnvironment) -> None:
        """Add the operator of the sums to the job, and the steps to the job's parameters."""
        written = encode_steps(self.steps)
        native = get_gateway().jvm.org.sage.flink.counters.JobCountersOperator
        native.wire(self.deltas, counter_names(self.steps), written).name(f"{COUNT}: Totals")
        config = env.get_config()
        config.set_global_job_parameters({**config.get_global_job_parameters(), STEPS: written})


def steps(graph: Graph) -> tuple[CountedStep, ...]:
    """The steps of the graph for record accounting, with the dead letters last."""
    nodes = (CountedStep(node.name, _kind(node), node.inputs) for node in graph.nodes)
    return (*nodes, CountedStep(DEAD_LETTERS, "dead_letters", ()))


def _kind(node: Node) -> Kind:
    match node:
        case Read():
            return "read"
        case FlatMap() | MapBatches():
            return "flat_map"
        case Call():
            return "call"
        case Batch():
            return "batch"
        case Union():
            return "union"
        case Write():
            return "write"
        case EventTime():
            return "event_time"
        case ProcessingTime():
            return "processing_time"
        case KeyBy():
            return "key_by"
        case Window():
            return "window"
        case Late():
            return "late"
        case Deduplicate():
            return "deduplicate"
        case ChangesOnly():
            return "changes_only"
        case RateLimit():
            return "rate_limit"
        case Join() | TemporalJoin():
            return "join"
        case BroadcastJoin():
            return "broadcast_join"
        case Fold():
            return "fold"
        case _:
            assert_never(node)
