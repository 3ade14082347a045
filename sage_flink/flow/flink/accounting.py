"""Where a Flink job counts: tallies on its streams, and the account that they end in.

A tally stands behind each source and each Python stage, and before each batch and native sink;
what it counts it sends, with every checkpoint barrier, to the one operator that holds the sums.
Tallies have no state and the account is one operator of a fixed name, so counts follow the names of
the steps through restarts, savepoints, another parallelism and a pipeline that gained a step.

Tried and left: counters of Flink's metrics (they begin at zero after each restart), and a stateful
operator at each place (its state cannot follow a step that moves into another stage).
"""

from typing import assert_never

from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

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
from sage_flink.platform.record_accounting import (
    STEPS,
    CountedStep,
    Kind,
    counter_name,
    counter_names,
    encode_steps,
)


class Account:
    """The record counters of a job while it is compiled."""

    def __init__(self, graph: Graph) -> None:
        self.steps = steps(graph)
        self.receipts: list[DataStream] = []

    def tally(self, stream: DataStream, node: str, *whats: str) -> DataStream:
        """The stream, each record counted as each of ``whats`` of the step ``node``."""
        return self.stage(stream, node, [counter_name(node, what) for what in whats])

    def stage(self, stream: DataStream, name: str, straight: list[str]) -> DataStream:
        """The stream without its receipts, each record counted in all counters ``straight``."""
        native = get_gateway().jvm.org.sage.flink.counters.RecordCounterOperator
        counted = native.wire(stream._j_data_stream, f"{name}.tally", straight)
        self.receipts.append(native.deltas(counted))
        return DataStream(counted)

    def wire(self, env: StreamExecutionEnvironment) -> None:
        """Add the account to the job, and the steps to its parameters for who reads it."""
        written = encode_steps(self.steps)
        native = get_gateway().jvm.org.sage.flink.counters.JobCountersOperator
        native.wire(self.receipts, counter_names(self.steps), written)
        config = env.get_config()
        config.set_global_job_parameters({**config.get_global_job_parameters(), STEPS: written})


def steps(graph: Graph) -> tuple[CountedStep, ...]:
    """The graph as its account sees it, the dead letters as its last step."""
    nodes = (CountedStep(node.name, _kind(node), node.inputs) for node in graph.nodes)
    return (*nodes, CountedStep(DEAD_LETTERS, "dead_letters", ()))


def _kind(node: Node) -> Kind:
    match node:
        case Read():
            return "read"
        case FlatMap():
            return "flat_map"
        case Call():
            return "call"
        case Batch():
            return "batch"
        case Union():
            return "union"
        case Write():
            return "write"
        case _:
            assert_never(node)
