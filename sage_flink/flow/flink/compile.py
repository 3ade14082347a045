"""The Flink target: one compile pass from a graph to DataStream operators.

Every edge carries encoded records (``byte[]``), so Java operators and Python workers read the same
wire form. A step's name is its operator's name and uid. Lowering, a node each:

========  ==========================================================================
Read      native source; a source that only Python can read becomes a collection
FlatMap   Python process function, failures to a side output
Call      Python request step -> Java async call (a task of its own) -> Python answer step;
Batch     Java micro-batch operator, pending records in operator state
Write     native sink, or a Python writer behind its batch
Union     union
========  ==========================================================================

Neighbouring Python steps share one operator. Failures of all steps are united and written to the
graph's dead-letter sink. What goes in and out is counted by
:mod:`~sage_flink.flow.flink.accounting`.
"""

import json
from typing import NamedTuple, assert_never

from pyflink.common import WatermarkStrategy
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.datastream.connectors import Sink as PySink
from pyflink.java_gateway import get_gateway

from sage_flink.common.records import encode
from sage_flink.common.settings import Settings
from sage_flink.flow.flink.accounting import Account
from sage_flink.flow.flink.python_steps import AnswerStep, FlatMapStep, RequestStep
from sage_flink.flow.flink.stage import BYTES, FAILED, Stage, Step
from sage_flink.flow.flink.write_step import DeadLetterWriteStep, SingleRecordBatchStep, WriteStep
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
from sage_flink.flow.ports import FlinkSink, FlinkSource, SharedSink, Sink, Source

#: The operator that holds back what a replay writes, and the sink behind it.
HELD = "held"


def compile_graph(
    graph: Graph,
    env: StreamExecutionEnvironment,
    *,
    job: str,
    settings: Settings,
    run: str = "",
    at_once: bool = False,
) -> None:
    """Add the operators of ``graph`` to ``env``; starts nothing."""
    _Compiler(graph, env, job, settings, run or job, at_once).compile()


class _Stage(NamedTuple):
    """Python steps that are to share an operator, and the stream they read."""

    stream: DataStream
    steps: tuple[Step, ...]


class _Compiler:
    def __init__(
        self,
        graph: Graph,
        env: StreamExecutionEnvironment,
        job: str,
        settings: Settings,
        run: str,
        at_once: bool,
    ) -> None:
        self.graph, self.env, self.job, self.settings = graph, env, job, settings
        self.run, self.at_once = run, at_once
        self.held: list[tuple[DataStream, SharedSink]] = []
        self.streams: dict[str, DataStream] = {}
        self.open: dict[str, _Stage] = {}  # by the name of their last step, to be extended
        self.failed: list[DataStream] = []
        self.account = Account(graph)

    def compile(self) -> None:
        for node in self.graph.nodes:
            self._node(node)
        for name in list(self.open):
            self._stream(name)
        if self.failed:
            self._dead_letters(self.failed[0].union(*self.failed[1:]))
        if self.held:
            self._held_sink()
        self.account.wire(self.env)

    def _dead_letters(self, letters: DataStream) -> None:
        """The letters into the graph's sink; a Python one gets them one by one."""
        sink = self.graph.dead_letters
        if isinstance(sink, FlinkSink):
            self._native_sink(letters, DEAD_LETTERS, sink)
        elif isinstance(sink, Sink):
            letters = self.account.tally(letters, DEAD_LETTERS, "read", "written")
            steps = (
                SingleRecordBatchStep(f"{DEAD_LETTERS}.batch"),
                DeadLetterWriteStep(DEAD_LETTERS, sink),
            )
            stage = Stage(steps, self.job, self.run, counted=False)
            letters.process(stage, BYTES).name(DEAD_LETTERS).uid(DEAD_LETTERS)

    def _node(self, node: Node) -> None:
        match node:
            case Read():
                counted = self.account.tally(self._read(node), node.name, "read", "emitted")
                self.streams[node.name] = counted
            case FlatMap():
                self._python(node.input, node.name, FlatMapStep(node))
            case Call():
                asked = f"{node.name}.request"
                self._python(node.input, asked, RequestStep(node, self.job))
                answered = _Stage(self._call(node, self._stream(asked)), (AnswerStep(node),))
                self.open[node.name] = answered
            case Batch():
                self.streams[node.name] = self._batch(node)
            case Union():
                first, *rest = (self._stream(name) for name in node.inputs)
                self.streams[node.name] = first.union(*rest)
            case Write(name, upstream, sink):
                if isinstance(sink, FlinkSink):
                    self._native_sink(self._stream(upstream), name, sink)
                else:
                    self._python(upstream, name, WriteStep(name, sink))
            case _:
                assert_never(node)

    def _python(self, upstream: str, name: str, step: Step) -> None:
        """Put ``step`` behind ``upstream``, into its stage where no other step reads that."""
        alone = len(list(self.graph.users(upstream))) == 1
        if upstream in self.open and alone:
            stage = self.open.pop(upstream)
        else:
            stage = _Stage(self._stream(upstream), ())
        self.open[name] = stage._replace(steps=(*stage.steps, step))

    def _stream(self, name: str) -> DataStream:
        """The output of step ``name``; its stage becomes an operator now."""
        if name in self.open:
            stage = self.open.pop(name)
            label = ", ".join(step.name for step in stage.steps)
            last = stage.steps[-1].name
            made = Stage(stage.steps, self.job, self.run)
            out = stage.stream.process(made, BYTES).name(label).uid(last)
            self.streams[name] = self.account.stage(out, last, made.straight())
            # Not PyFlink's get_side_output: it adds a Python operator that does nothing.
            tag = FAILED.get_java_output_tag()
            self.failed.append(DataStream(out._j_data_stream.getSideOutput(tag)))
        return self.streams[name]

    def _read(self, node: Read) -> DataStream:
        jvm, j_env = get_gateway().jvm, self.env._j_stream_execution_environment
        source, j_bytes = node.source, BYTES.get_java_type_info()
        if isinstance(source, FlinkSource):
            j_source = source.flink_source(jvm)
            watermarks = WatermarkStrategy.no_watermarks()._j_watermark_strategy
            j_stream = j_env.fromSource(j_source, watermarks, node.name, j_bytes)
            return DataStream(j_stream).uid(node.name)
        assert isinstance(source, Source)
        given = jvm.java.util.ArrayList()  # PyFlink's from_collection cannot take bytes
        for record in source.records():
            given.add(encode(record))
        return DataStream(j_env.fromData(given, j_bytes)).name(node.name).uid(node.name)

    def _call(self, node: Call, asked: DataStream) -> DataStream:
        native = get_gateway().jvm.org.sage.flink.call.PoolAsyncFunction
        config = json.dumps(
            {
                "name": node.name,
                "urls": list(self.settings.gateway_urls),
                "path": node.spec.path,
                "mode": node.spec.mode,
                "model": node.spec.model,
                "capacity": node.capacity,
                "timeout_ms": round(node.timeout_s * 1000),
                "attempts_max": node.attempts_max,
                "ordered": node.ordered,
                "items_max": node.items_max,
                "tokens_max": node.tokens_max,
                "linger_ms": round(node.linger_s * 1000),
                "slack_ms": max(1, round((node.slack_s or node.timeout_s) * 1000)),
                "dim": getattr(node.spec, "dim", 0),
                "key_env": "SAGE_GATEWAY_KEY",
                "key_file": "keys/gateway",
            }
        )
        return DataStream(native.wire(asked._j_data_stream, config))

    def _batch(self, node: Batch) -> DataStream:
        native = get_gateway().jvm.org.sage.flink.batching.MicroBatchOperator
        stream = self.account.tally(self._stream(node.input), node.name, "read")._j_data_stream
        linger_ms = max(1, round(node.linger_s * 1000))
        return DataStream(native.wire(stream, node.name, node.items_max, node.bytes_max, linger_ms))

    def _native_sink(self, stream: DataStream, name: str, sink: FlinkSink) -> None:
        # What enters counts as written: it is committed with the checkpoint that holds the count.
        stream = self.account.tally(stream, name, "read", "written")
        if self.at_once and isinstance(sink, SharedSink):
            self.held.append((stream, sink))
            return
        prefix = f"sage-{self.run}-{name}"
        j_sink = sink.flink_sink(get_gateway().jvm, transaction_prefix=prefix)
        stream.sink_to(PySink(j_sink)).name(name).uid(name)

    def _held_sink(self) -> None:
        """One sink for what goes to native ones, so that it becomes visible in one transaction."""
        jvm = get_gateway().jvm
        streams, topics = jvm.java.util.ArrayList(), jvm.java.util.ArrayList()
        for stream, sink in self.held:
            streams.add(stream._j_data_stream)
            topics.add(sink.topic)
        native = jvm.org.sage.flink.connector.EndOfInputBufferOperator
        held = DataStream(native.wire(streams, topics, HELD))
        shared = self.held[0][1].shared().flink_sink(jvm, transaction_prefix=f"sage-{self.run}")
        held.sink_to(PySink(shared)).name(f"{HELD}.write").uid(f"{HELD}.write").set_parallelism(1)
