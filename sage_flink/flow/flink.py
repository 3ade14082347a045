"""The Flink target: one compile pass from a graph to DataStream operators.

Every edge carries encoded records (``byte[]``), so Java operators and Python workers read the same
wire form. A step's name is its operator's name and uid. Lowering, a node each:

========  ==========================================================================
Read      native source; a source that only Python can read becomes a collection
FlatMap   Python process function, failures to a side output
Call      Python request step -> Java async call (a task of its own) -> Python answer step;
          with ``calls="python"``: PyFlink's async call -> Python step (flow.flink_fallback)
Batch     Java micro-batch operator, pending records in operator state; without the jar of these:
          batches of one record
Write     native sink, or a Python writer behind its batch
Union     union
========  ==========================================================================

Neighbouring Python steps share one operator. Failures of all steps are united and written to the
graph's dead-letter sink.
"""

import json
import logging
from functools import partial
from typing import NamedTuple, assert_never

from py4j.protocol import Py4JJavaError
from pyflink.common import WatermarkStrategy
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.datastream.connectors import Sink as PySink
from pyflink.java_gateway import get_gateway

from sage_flink.common.errors import PipelineError, StackError
from sage_flink.common.records import encode
from sage_flink.common.settings import Settings
from sage_flink.flow.check import check
from sage_flink.flow.flink_fallback import AloneStep, LetterStep, OutcomeStep, called, of_jar
from sage_flink.flow.flink_steps import (
    BYTES,
    FAILED,
    AnswerStep,
    FlatMapStep,
    RequestStep,
    Stage,
    Step,
    WriteStep,
)
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
from sage_flink.flow.ports import FlinkSink, FlinkSource, Prepared, Sink, Source
from sage_flink.platform.cluster import INSIDE_FLINK_RUN, FlinkOptions, environment, native_jar
from sage_flink.platform.flink_rest import FlinkRest

log = logging.getLogger("sage.flow")


def submit(
    graph: Graph,
    *,
    name: str,
    options: FlinkOptions | None = None,
    settings: Settings | None = None,
) -> str:
    """Start ``graph`` as a Flink job called ``name``; its job id comes back.

    Inside ``flink run`` the job goes where that command points, else to ``settings.flink_url``.

    Raises:
        PipelineError: the graph cannot run on Flink, or a job of this name runs; nothing was
            started.
        ConfigError: the native jar is missing where it is needed, or ``flink_url`` is no address.
        StackError: the cluster does not take the job.
        StoreUnavailable: a server that it needs is away, Kafka say; nothing was started.
    """
    settings = settings or Settings.load()
    options = options or FlinkOptions()
    check(graph, "flink")
    if options.target == "remote" and not INSIDE_FLINK_RUN:
        _alone(name, settings.flink_url)
    env = environment(options, settings)
    native = Native(calls=options.calls == "native", jar=native_jar(settings).exists())
    compile_graph(graph, env, job=name, settings=settings, native=native)
    ends = [
        node.source if isinstance(node, Read) else node.sink
        for node in graph.nodes
        if isinstance(node, Read | Write)
    ]
    for spec in (*ends, graph.dead_letters):
        if isinstance(spec, Prepared):
            spec.prepare()
    try:
        return str(env.execute_async(name).get_job_id())
    except Py4JJavaError as error:
        raise StackError(
            f"Flink at {settings.flink_url} did not take job {name!r}: {_cause(error)}; "
            "see `sage ps` and `sage logs jobmanager`"
        ) from error


def _alone(name: str, url: str) -> None:
    """Refuse a second job of this name: the two would end each other's Kafka transactions."""
    with FlinkRest(url) as rest:
        if job := rest.running(name):
            raise PipelineError(
                f"job {name!r} runs already ({job.id}); stop it with `sage jobs stop {name}`, "
                "or submit under another name"
            )


def _cause(error: Py4JJavaError) -> str:
    """The innermost message of a Java exception."""
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    message = str(cause.getMessage() or cause.toString())
    # An error of the REST server carries the server's whole stack trace as its text.
    said = [line for line in message.splitlines() if line.startswith("Caused by: ")]
    return (said[-1].removeprefix("Caused by: ") if said else message)[:500]


class Native(NamedTuple):
    """Which operators are Java's: the calls, and whatever else the native jar brings."""

    calls: bool = True
    jar: bool = True


def compile_graph(
    graph: Graph,
    env: StreamExecutionEnvironment,
    *,
    job: str,
    settings: Settings,
    native: Native = Native(),  # noqa: B008 - a frozen value
) -> None:
    """Add the operators of ``graph`` to ``env``; starts nothing.

    Raises:
        ConfigError: an end of the graph needs the native jar, and it is missing.
    """
    _Compiler(graph, env, job, settings, native).compile()


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
        native: Native,
    ) -> None:
        self.graph, self.env, self.job, self.settings = graph, env, job, settings
        self.native = native
        self.streams: dict[str, DataStream] = {}
        self.open: dict[str, _Stage] = {}  # by the name of their last step, to be extended
        self.failed: list[DataStream] = []

    def compile(self) -> None:
        for node in self.graph.nodes:
            self._node(node)
        for name in list(self.open):
            self._stream(name)
        if self.failed:
            self._dead_letters(self.failed[0].union(*self.failed[1:]))

    def _dead_letters(self, letters: DataStream) -> None:
        """The letters into the graph's sink; a Python one gets them one by one."""
        sink = self.graph.dead_letters
        if isinstance(sink, FlinkSink):
            self._native_sink(letters, DEAD_LETTERS, sink)
        elif isinstance(sink, Sink):
            alone = AloneStep(f"{DEAD_LETTERS}.batch")
            stage = Stage((alone, LetterStep(DEAD_LETTERS, sink)))
            letters.process(stage, BYTES).name(DEAD_LETTERS).uid(DEAD_LETTERS)

    def _node(self, node: Node) -> None:
        match node:
            case Read():
                self.streams[node.name] = self._read(node)
            case FlatMap():
                self._python(node.input, node.name, FlatMapStep(node))
            case Call() if not self.native.calls:
                urls = self.settings.gateway_urls
                out = called(self._stream(node.input), node, job=self.job, urls=urls)
                self.open[node.name] = _Stage(out, (OutcomeStep(node),))
            case Call():
                asked = f"{node.name}.request"
                self._python(node.input, asked, RequestStep(node, self.job))
                answered = _Stage(self._call(node, self._stream(asked)), (AnswerStep(node),))
                self.open[node.name] = answered
            case Batch() if not self.native.jar:
                log.warning("step %r: no native jar, so batches of one record", node.name)
                self._python(node.input, node.name, AloneStep(node.name))
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
            out = stage.stream.process(Stage(stage.steps), BYTES).name(label)
            out = out.uid(stage.steps[-1].name)
            self.streams[name] = out
            # Not PyFlink's get_side_output: it adds a Python operator that does nothing.
            tag = FAILED.get_java_output_tag()
            self.failed.append(DataStream(out._j_data_stream.getSideOutput(tag)))
        return self.streams[name]

    def _read(self, node: Read) -> DataStream:
        jvm, j_env = get_gateway().jvm, self.env._j_stream_execution_environment
        source, j_bytes = node.source, BYTES.get_java_type_info()
        if isinstance(source, FlinkSource) and (self.native.jar or not isinstance(source, Source)):
            j_source = of_jar(node.name, self.native.jar, lambda: source.flink_source(jvm))
            watermarks = WatermarkStrategy.no_watermarks()._j_watermark_strategy
            j_stream = j_env.fromSource(j_source, watermarks, node.name, j_bytes)
            return DataStream(j_stream).uid(node.name)
        assert isinstance(source, Source)
        given = jvm.java.util.ArrayList()  # PyFlink's from_collection cannot take bytes
        for record in source.records():
            given.add(encode(record))
        return DataStream(j_env.fromData(given, j_bytes)).name(node.name).uid(node.name)

    def _call(self, node: Call, asked: DataStream) -> DataStream:
        native = get_gateway().jvm.org.sage.flink.PoolCall
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
                "linger_ms": round(node.linger_s * 1000),
                "key_env": "SAGE_GATEWAY_KEY",
                "key_file": "keys/gateway",
            }
        )
        return DataStream(native.wire(asked._j_data_stream, config))

    def _batch(self, node: Batch) -> DataStream:
        native = get_gateway().jvm.org.sage.flink.MicroBatch
        stream = self._stream(node.input)._j_data_stream
        linger_ms = max(1, round(node.linger_s * 1000))
        return DataStream(native.wire(stream, node.name, node.items_max, node.bytes_max, linger_ms))

    def _native_sink(self, stream: DataStream, name: str, sink: FlinkSink) -> None:
        prefix = f"sage-{self.job}-{name}"
        jvm = get_gateway().jvm
        opened = partial(sink.flink_sink, jvm, transaction_prefix=prefix)
        j_sink = of_jar(name, self.native.jar, opened)
        stream.sink_to(PySink(j_sink)).name(name).uid(name)
