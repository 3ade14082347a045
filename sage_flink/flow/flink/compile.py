"""The compile pass of the Flink target: from a graph to DataStream operators.

Every edge carries encoded records (``byte[]``), so Java operators and Python workers read the same
wire form. A step's name is its operator's uid, and its name in Flink's web UI. Nodes become:

========  ==========================================================================
Read      native source; a source without one is read here and becomes a collection
FlatMap   Python process function, failures to a side output; a format may be a Java operator
MapBatches  as Batch, then a Python process function
Call      request step -> Java async call (a task of its own) -> answer step; where the spec is
          one of sage's both are Java operators, else Python
Batch     Java micro-batch operator, pending records in operator state
Write     native sink, or a Python writer behind its batch
Union     union
Fold      native keyed operator with a Python process function, its state that of Flink
stateful  native operators, see :mod:`~sage_flink.flow.flink.stateful_steps`
========  ==========================================================================

Neighbouring Python steps share one operator. Failures of all steps are united and written to the
graph's dead-letter sink. Record counters come from :mod:`~sage_flink.flow.flink.accounting`.
"""

from typing import NamedTuple

from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway

from sage_flink.common.records import encode
from sage_flink.common.settings import Settings
from sage_flink.flow.batch_maps import BYTES_MAX, MapBatches
from sage_flink.flow.deletes import receivers
from sage_flink.flow.flink.accounting import RecordAccounting
from sage_flink.flow.flink.batch_step import MapBatchesStep, micro_batches
from sage_flink.flow.flink.call_steps import (
    call,
    has_native_answer,
    has_native_request,
    native_answer,
    native_request,
)
from sage_flink.flow.flink.fold_step import FoldStep
from sage_flink.flow.flink.native_functions import (
    apply_native,
    decode_json,
    encode_json,
    has_native_decoder,
    has_native_encoder,
    native_operator,
)
from sage_flink.flow.flink.native_sinks import NativeSinks
from sage_flink.flow.flink.python_steps import AnswerStep, FlatMapStep, RequestStep
from sage_flink.flow.flink.savepoint_state import operator_name, step_of
from sage_flink.flow.flink.stage import BYTES, Stage, Step, add_stage, failed_stream
from sage_flink.flow.flink.stateful_steps import StatefulCompiler, source_watermarks
from sage_flink.flow.flink.step_options import apply_step_options
from sage_flink.flow.flink.write_step import DeadLetterWriteStep, SingleRecordBatchStep, WriteStep
from sage_flink.flow.graph import (
    DEAD_LETTERS,
    Batch,
    Call,
    FlatMap,
    Graph,
    Node,
    Read,
    StatefulNode,
    Union,
    Write,
)
from sage_flink.flow.ports import FlinkSink, FlinkSource, Sink
from sage_flink.flow.stateful.keyed_nodes import Fold
from sage_flink.flow.stateful.nodes import Late
from sage_flink.flow.steps import source_records
from sage_flink.platform.cluster import FlinkOptions
from sage_flink.platform.record_accounting import counter_name


def compile_graph(
    graph: Graph,
    env: StreamExecutionEnvironment,
    options: FlinkOptions,
    *,
    job: str,
    settings: Settings,
    run: str = "",
    in_one_transaction: bool = False,
) -> None:
    """Add the operators of ``graph`` to ``env``; does not start the job."""
    _Compiler(graph, env, options, job, settings, run or job, in_one_transaction).compile()
    apply_step_options(env, options.steps)


class _OpenStage(NamedTuple):
    """Python steps that will share an operator, and the stream that they read.

    A branch is a task of its own: its bundles do not wait for those of the other branches.
    """

    stream: DataStream
    steps: tuple[Step, ...]
    is_branch: bool = False


class _Compiler:
    def __init__(
        self,
        graph: Graph,
        env: StreamExecutionEnvironment,
        options: FlinkOptions,
        job: str,
        settings: Settings,
        run: str,
        in_one_transaction: bool,
    ) -> None:
        self.graph, self.env, self.options = graph, env, options
        self.job, self.settings, self.run = job, settings, run
        self.with_deletes = receivers(graph)
        self.streams: dict[str, DataStream] = {}
        self.open_stages: dict[str, _OpenStage] = {}  # by the name of the last step
        self.failed: list[DataStream] = []
        self.late: dict[str, DataStream] = {}  # by the name of the window or join
        self.accounting = RecordAccounting(graph)
        self.stateful = StatefulCompiler(graph, self.accounting, job, self.run)
        self.sinks = NativeSinks(self.accounting, job, run, in_one_transaction=in_one_transaction)

    def compile(self) -> None:
        for node in self.graph.nodes:
            self._node(node)
        for name in list(self.open_stages):
            self._stream(name)
        if failed := self.failed + self.sinks.failed:
            self._dead_letters(failed[0].union(*failed[1:]))
        self.sinks.add_transaction()
        self.accounting.wire(self.env)

    def _dead_letters(self, failed: DataStream) -> None:
        """Write failed records to the graph's sink; a Python sink gets them one by one."""
        sink = self.graph.dead_letters
        if isinstance(sink, FlinkSink):
            self.sinks.add(failed, DEAD_LETTERS, sink)
        elif isinstance(sink, Sink):
            failed = self.accounting.count(failed, DEAD_LETTERS, "read", "written")
            steps = (
                SingleRecordBatchStep(f"{DEAD_LETTERS}.batch"),
                DeadLetterWriteStep(DEAD_LETTERS, sink),
            )
            stage = Stage(steps, self.job, self.run, counted=False)
            add_stage(failed, stage, DEAD_LETTERS).uid(DEAD_LETTERS)

    def _node(self, node: Node) -> None:
        match node:
            case Read(name):
                source = self._read(node)
                self.streams[name] = self.accounting.count(source, name, "read", "emitted")
            case FlatMap():
                self._flat_map(node)
            case MapBatches(name, upstream, _, items, linger_s):
                stream = self._stream(upstream)
                batches = micro_batches(stream, f"{name}.batch", items, BYTES_MAX, linger_s)
                self.open_stages[name] = _OpenStage(batches, (MapBatchesStep(node),))
            case Call():
                self._answer(node, call(node, self._requests(node), self.settings))
            case Batch():
                self.streams[node.name] = self._batch(node)
            case Union():
                first, *rest = (self._stream(name) for name in node.inputs)
                self.streams[node.name] = first.union(*rest)
            case Write(name, upstream, sink):
                if isinstance(sink, FlinkSink):
                    self.sinks.add(self._stream(upstream), name, sink)
                else:
                    ends = name in self.with_deletes
                    self._python(upstream, name, WriteStep(name, sink, ends_documents=ends))
            case Fold():
                self.open_stages[node.name] = _OpenStage(
                    self._stream(node.input), (FoldStep(node),)
                )
            case Late():
                self.streams[node.name] = self.late[node.input]
            case _:
                self._stateful(node)

    def _flat_map(self, node: FlatMap) -> None:
        """A function in the JVM where it can be; not in the middle of a Python stage."""
        alone = not self._joins_stage(node.input, node.name)
        if has_native_decoder(self.graph, node):
            change = decode_json
        elif alone and has_native_encoder(node):
            change = encode_json
        elif alone and native_operator(node):
            change = apply_native
        else:
            self._python(node.input, node.name, FlatMapStep(node))
            return
        out = change(node, self._stream(node.input), self.job, self.run)
        self.failed.append(failed_stream(out._j_data_stream))
        counters = [counter_name(node.name, count) for count in ("read", "emitted")]
        self.streams[node.name] = self.accounting.count_stage(out, node.name, counters)

    def _stateful(self, node: StatefulNode) -> None:
        step = self.stateful.add(node, *map(self._stream, node.inputs))
        self.streams[node.name] = step.out
        self.failed += step.failed
        if step.late is not None:
            self.late[node.name] = step.late

    def _python(self, upstream: str, name: str, step: Step) -> None:
        """Append ``step`` to the stage of ``upstream``, or to a new one if that has other users."""
        if self._joins_stage(upstream, name):
            stage = self.open_stages.pop(upstream)
        else:
            is_branch = len(list(self.graph.users(upstream))) > 1
            stage = _OpenStage(self._stream(upstream), (), is_branch)
        self.open_stages[name] = stage._replace(steps=(*stage.steps, step))

    def _joins_stage(self, upstream: str, name: str) -> bool:
        """Whether a Python step that reads from ``upstream`` shares its operator."""
        options = self.options.steps.get
        is_alone = len(list(self.graph.users(upstream))) == 1
        alike = options(step_of(upstream)) == options(step_of(name))
        return upstream in self.open_stages and is_alone and alike

    def _stream(self, name: str) -> DataStream:
        """The output of step ``name``; an open stage becomes an operator here."""
        if name in self.open_stages:
            stage = self.open_stages.pop(name)
            label = ", ".join(operator_name(step.name) for step in stage.steps)
            first, last = stage.steps[0], stage.steps[-1].name
            limit_s = self.options.record_timeout_s
            function = Stage(stage.steps, self.job, self.run, record_timeout_s=limit_s)
            out = add_stage(stage.stream, function, label)
            if stage.is_branch:
                out._j_data_stream.startNewChain()
            # State follows the uid, and steps may be added behind the one that has it.
            out.uid(last if first.state_ttl_ms is None else first.name)
            counters = function.passthrough_counters()
            self.streams[name] = self.accounting.count_stage(out, last, counters)
            self.failed.append(failed_stream(out._j_data_stream))
        return self.streams[name]

    def _read(self, node: Read) -> DataStream:
        jvm, j_env = get_gateway().jvm, self.env._j_stream_execution_environment
        source, j_bytes = node.source, BYTES.get_java_type_info()
        if isinstance(source, FlinkSource):
            j_source = source.flink_source(jvm)
            watermarks = source_watermarks(self.graph)._j_watermark_strategy
            j_stream = j_env.fromSource(j_source, watermarks, node.name, j_bytes)
            if hasattr(source, "parallelism"):
                j_stream.setParallelism(source.parallelism)
            return DataStream(j_stream).uid(node.name)
        rows = jvm.java.util.ArrayList()  # PyFlink's from_collection cannot take bytes
        for record in source_records(node):
            rows.add(encode(record))
        native = jvm.org.sage.flink.connector.NumberSource
        j_stream = j_env.fromData(rows, j_bytes) if rows else native.none(j_env, node.name)
        return DataStream(j_stream).name(node.name).uid(node.name)

    def _requests(self, node: Call) -> DataStream:
        name = f"{node.name}.request"
        if not has_native_request(node):
            self._python(node.input, name, RequestStep(node, self.job))
            return self._stream(name)
        out = native_request(node, self._stream(node.input), self.job, self.run)
        self.failed.append(failed_stream(out._j_data_stream))
        counters = [counter_name(node.name, count) for count in ("read", "asked")]
        return self.accounting.count_stage(out, name, counters)

    def _answer(self, node: Call, results: DataStream) -> None:
        """The results of the calls as records."""
        if not has_native_answer(node):
            self.open_stages[node.name] = _OpenStage(results, (AnswerStep(node),))
            return
        out = native_answer(node, results, self.job, self.run)
        self.failed.append(failed_stream(out._j_data_stream))
        self.streams[node.name] = self.accounting.count(out, node.name, "answered", "emitted")

    def _batch(self, node: Batch) -> DataStream:
        stream = self.accounting.count(self._stream(node.input), node.name, "read")
        return micro_batches(stream, node.name, node.items_max, node.bytes_max, node.linger_s)
