"""The Flink target: one compile pass from a graph to DataStream operators.

Every edge carries encoded records (``byte[]``), so Java operators and Python workers read the same
wire form. A step's name is its operator's name and uid. Lowering, a node each:

========  ==========================================================================
Read      native source; a source that only Python can read becomes a collection
FlatMap   Python process function, failures to a side output
Call      Python request step -> Java async call (a task of its own) -> Python answer step
Batch     Java micro-batch operator, pending records in operator state
Write     native sink, or a Python writer behind its batch
Union     union
========  ==========================================================================

Failures of all steps are united and written to the graph's dead-letter sink.
"""

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, assert_never

import msgspec
import pyflink
import tenacity
from py4j.protocol import Py4JJavaError
from pyflink.common import Configuration, Types, WatermarkStrategy
from pyflink.datastream import DataStream, OutputTag, StreamExecutionEnvironment
from pyflink.datastream.connectors import Sink as PySink
from pyflink.datastream.functions import ProcessFunction, RuntimeContext
from pyflink.java_gateway import get_gateway

from sage_flink.common.errors import PipelineError, Retryable, StackError
from sage_flink.common.records import Failed, Record, decode, decode_many, encode
from sage_flink.common.settings import Settings
from sage_flink.flow.check import check
from sage_flink.flow.graph import Batch, Call, FlatMap, Graph, Node, Read, Union, Write
from sage_flink.flow.ports import FlinkSink, FlinkSource, Prepared, Sink, Writer
from sage_flink.flow.steps import flat_map, guarded, request_id

BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())
FAILED = OutputTag("failed", BYTES)
#: Read before PyFlink starts a JVM of its own, which sets the same variable.
INSIDE_FLINK_RUN = "PYFLINK_GATEWAY_PORT" in os.environ
Emitted = bytes | tuple[OutputTag, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class FlinkOptions:
    """How a job runs: on the cluster at ``settings.flink_url`` (``remote``), or on a MiniCluster in
    this process (``local``).

    ``bundle_s`` bounds how long a Python step gathers elements before it hands them on: it is the
    latency that each Python stage adds to a trickle of records.
    """

    target: Literal["remote", "local"] = "remote"
    parallelism: int = 1
    checkpoint_interval_s: float = 2.0
    bundle_s: float = 0.01
    bundle_items: int = 1000
    restarts_max: int = 100


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
        PipelineError: the graph cannot run on Flink; nothing was started.
        StackError: the cluster does not take the job.
        StoreUnavailable: a server that it needs is away, Kafka say; nothing was started.
    """
    settings = settings or Settings.load()
    check(graph, "flink")
    ends = [
        node.source if isinstance(node, Read) else node.sink
        for node in graph.nodes
        if isinstance(node, Read | Write)
    ]
    for spec in (*ends, graph.dead_letters):
        if isinstance(spec, Prepared):
            spec.prepare()
    env = environment(options or FlinkOptions(), settings)
    compile_graph(graph, env, job=name, settings=settings)
    try:
        return str(env.execute_async(name).get_job_id())
    except Py4JJavaError as error:
        raise StackError(
            f"Flink at {settings.flink_url} did not take job {name!r}: {_cause(error)}; "
            "see `sage ps` and `sage logs jobmanager`"
        ) from error


def _cause(error: Py4JJavaError) -> str:
    """The innermost message of a Java exception."""
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    message = str(cause.getMessage() or cause.toString())
    # An error of the REST server carries the server's whole stack trace as its text.
    said = [line for line in message.splitlines() if line.startswith("Caused by: ")]
    return (said[-1].removeprefix("Caused by: ") if said else message)[:500]


def environment(options: FlinkOptions, settings: Settings) -> StreamExecutionEnvironment:
    """An environment with the native jar, exactly-once checkpoints and small Python bundles."""
    jar = settings.home / "lib" / "sage-native.jar"
    if not jar.exists():
        raise PipelineError(f"the native operators are missing ({jar}); run `bash infra/setup.sh`")
    # `flink run` adds PyFlink's operators to a job's jars by itself; nothing else does.
    operators = Path(pyflink.__file__).parent.glob("opt/flink-python-*.jar")
    jars = [jar] if INSIDE_FLINK_RUN else [jar, *operators]
    config = Configuration()
    for key, value in _configuration(options).items():
        config.set_string(key, value)
    if options.target == "remote" and not INSIDE_FLINK_RUN:
        env = _remote(config, settings.flink_url)
    else:
        env = StreamExecutionEnvironment.get_execution_environment(config)
    env.set_parallelism(options.parallelism)
    env.add_jars(*(path.as_uri() for path in jars))
    return env


def _remote(config: Configuration, url: str) -> StreamExecutionEnvironment:
    # get_execution_environment makes a local one outside of `flink run`, whatever the target says.
    host, _, port = url.removeprefix("http://").partition(":")
    config.set_string("execution.target", "remote")
    config.set_string("rest.address", host)
    config.set_string("rest.port", port or "8081")
    environments = get_gateway().jvm.org.apache.flink.streaming.api.environment
    return StreamExecutionEnvironment(
        environments.StreamExecutionEnvironment(config._j_configuration)
    )


def _configuration(options: FlinkOptions) -> dict[str, str]:
    return {
        "python.executable": sys.executable,
        "python.client.executable": sys.executable,
        "python.fn-execution.bundle.time": str(round(options.bundle_s * 1000)),
        "python.fn-execution.bundle.size": str(options.bundle_items),
        "execution.checkpointing.interval": f"{round(options.checkpoint_interval_s * 1000)} ms",
        "execution.checkpointing.mode": "EXACTLY_ONCE",
        "execution.checkpointing.min-pause": "200 ms",
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": str(options.restarts_max),
        "restart-strategy.fixed-delay.delay": "1 s",
    }


def compile_graph(
    graph: Graph, env: StreamExecutionEnvironment, *, job: str, settings: Settings
) -> None:
    """Add the operators of ``graph`` to ``env``; starts nothing."""
    _Compiler(env, job, settings).compile(graph)


@dataclass(slots=True)
class _Compiler:
    env: StreamExecutionEnvironment
    job: str
    settings: Settings
    streams: dict[str, DataStream] = field(default_factory=dict)
    failed: list[DataStream] = field(default_factory=list)

    def compile(self, graph: Graph) -> None:
        for node in graph.nodes:
            self._node(node)
        if self.failed and isinstance(graph.dead_letters, FlinkSink):
            united = self.failed[0].union(*self.failed[1:])
            self._native_sink(united, "dead-letters", graph.dead_letters)

    def _node(self, node: Node) -> None:
        match node:
            case Read():
                self.streams[node.name] = self._read(node)
            case FlatMap():
                self.streams[node.name] = self._python(node.input, node.name, _FlatMap(node))
            case Call():
                self.streams[node.name] = self._call(node)
            case Batch():
                self.streams[node.name] = self._batch(node)
            case Union():
                first, *rest = (self.streams[name] for name in node.inputs)
                self.streams[node.name] = first.union(*rest)
            case Write(name, upstream, sink):
                if isinstance(sink, FlinkSink):
                    self._native_sink(self.streams[upstream], name, sink)
                else:
                    self._python(upstream, name, _Write(name, sink))
            case _:
                assert_never(node)

    def _read(self, node: Read) -> DataStream:
        jvm, j_env = get_gateway().jvm, self.env._j_stream_execution_environment
        if not isinstance(node.source, FlinkSource):
            given = jvm.java.util.ArrayList()  # PyFlink's from_collection cannot take bytes
            for record in node.source.records():
                given.add(encode(record))
            j_given = j_env.fromData(given, BYTES.get_java_type_info())
            return DataStream(j_given).name(node.name).uid(node.name)
        j_stream = j_env.fromSource(
            node.source.flink_source(jvm),
            WatermarkStrategy.no_watermarks()._j_watermark_strategy,
            node.name,
            BYTES.get_java_type_info(),
        )
        return DataStream(j_stream).uid(node.name)

    def _python(self, upstream: str | DataStream, name: str, step: ProcessFunction) -> DataStream:
        stream = self.streams[upstream] if isinstance(upstream, str) else upstream
        out = stream.process(step, BYTES).name(name).uid(name)
        self.failed.append(out.get_side_output(FAILED))
        return out

    def _call(self, node: Call) -> DataStream:
        asked = self._python(node.input, f"{node.name}.request", _Request(node, self.job))
        native = get_gateway().jvm.org.sage.flink.PoolCall
        config = json.dumps(
            {
                "name": node.name,
                "urls": [self.settings.gateway_url],
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
        answered = DataStream(native.wire(asked._j_data_stream, config))
        return self._python(answered, f"{node.name}.answer", _Answer(node))

    def _batch(self, node: Batch) -> DataStream:
        native = get_gateway().jvm.org.sage.flink.MicroBatch
        stream = self.streams[node.input]._j_data_stream
        linger_ms = max(1, round(node.linger_s * 1000))
        return DataStream(native.wire(stream, node.name, node.items_max, node.bytes_max, linger_ms))

    def _native_sink(self, stream: DataStream, name: str, sink: FlinkSink) -> None:
        prefix = f"sage-{self.job}-{name}"
        j_sink = sink.flink_sink(get_gateway().jvm, transaction_prefix=prefix)
        stream.sink_to(PySink(j_sink)).name(name).uid(name)


class _Step(ProcessFunction):  # type: ignore[misc]
    """A Python step: counts what comes in, goes out and fails, in Flink's metrics."""

    def open(self, runtime_context: RuntimeContext) -> None:
        group = runtime_context.get_metrics_group()
        self.read = group.counter("read")
        self.emitted = group.counter("emitted")
        self.dead_lettered = group.counter("dead_lettered")

    def _fail(self, failed: Failed) -> Emitted:
        self.dead_lettered.inc()
        letter = Record(
            id=failed.id,
            value=failed.to_json(),
            timestamp_ms=failed.timestamp_ms,
            key=failed.id.encode(),
        )
        return FAILED, encode(letter)


class _FlatMap(_Step):
    def __init__(self, node: FlatMap) -> None:
        self.node = node

    def process_element(self, value: bytes, ctx: ProcessFunction.Context) -> Iterator[Emitted]:
        self.read.inc()
        record = decode(value)
        outcome = guarded(self.node.name, record, lambda: flat_map(self.node, record))
        if isinstance(outcome, Failed):
            yield self._fail(outcome)
            return
        self.emitted.inc(len(outcome))
        for out in outcome:
            yield encode(out)


class _Request(_Step):
    """Record -> [record, request id, body], as the native call takes it."""

    def __init__(self, node: Call, job: str) -> None:
        self.node, self.job = node, job

    def process_element(self, value: bytes, ctx: ProcessFunction.Context) -> Iterator[Emitted]:
        self.read.inc()
        record = decode(value)
        body = guarded(self.node.name, record, lambda: self.node.spec.request(record))
        if isinstance(body, Failed):
            yield self._fail(body)
            return
        self.emitted.inc()
        yield msgspec.msgpack.encode((value, request_id(self.job, self.node, record), body))


class _Answered(msgspec.Struct, array_like=True):
    """The native call's envelope; the call succeeded exactly when ``reason`` is empty."""

    record: bytes
    status: int
    attempts: int
    reason: str
    body: bytes


class _Answer(_Step):
    """Envelope -> the record with its answer, or a failure."""

    def __init__(self, node: Call) -> None:
        self.node = node

    def process_element(self, value: bytes, ctx: ProcessFunction.Context) -> Iterator[Emitted]:
        self.read.inc()
        answer = msgspec.msgpack.decode(value, type=_Answered)
        record = decode(answer.record)
        if answer.reason:
            yield self._fail(Failed.of(record, self.node.name, answer.reason, answer.attempts))
            return
        out = guarded(self.node.name, record, lambda: self.node.spec.answer(record, answer.body))
        if isinstance(out, Failed):
            yield self._fail(out)
            return
        self.emitted.inc()
        yield encode(out)


class _Write(_Step):
    """A batch into the sink. While the sink is away the step waits, and back-pressure builds."""

    def __init__(self, name: str, sink: Sink) -> None:
        self.name, self.sink = name, sink
        self.opened: Writer | None = None

    def open(self, runtime_context: RuntimeContext) -> None:
        super().open(runtime_context)
        self.patience = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Retryable),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
            stop=tenacity.stop_after_delay(120),
            reraise=True,
        )

    def close(self) -> None:
        if self.opened is not None:
            self.opened.close()

    def process_element(self, value: bytes, ctx: ProcessFunction.Context) -> Iterator[Emitted]:
        records = decode_many(value)
        self.read.inc(len(records))
        refused = self.patience(self._write, records)
        self.emitted.inc(len(records) - len(refused))
        for refusal in refused:
            yield self._fail(Failed.of(refusal.record, self.name, refusal.reason))

    def _write(self, records: list[Record]) -> Any:
        if self.opened is None:
            self.opened = self.sink.writer()
        return self.opened.write(records)
