"""Native sinks: their limits, their counters, and one transaction for all of them in a replay."""

from pyflink.datastream import DataStream
from pyflink.datastream.connectors import Sink as PySink
from pyflink.java_gateway import get_gateway

from sage_flink.flow.flink.accounting import RecordAccounting
from sage_flink.flow.flink.savepoint_state import operator_name
from sage_flink.flow.flink.stage import failed_stream
from sage_flink.flow.graph import DEAD_LETTERS
from sage_flink.flow.ports import FlinkSink, LimitedSink, SharedSink

#: The operator that buffers the output of a replay until the end of its input.
END_OF_INPUT_BUFFER = "held"


class NativeSinks:
    """Adds the sinks that Flink writes itself to a job; ``failed`` has what they cannot write."""

    def __init__(
        self, accounting: RecordAccounting, job: str, run: str, *, in_one_transaction: bool
    ) -> None:
        self.accounting, self.job, self.run = accounting, job, run
        self.in_one_transaction = in_one_transaction
        self.failed: list[DataStream] = []
        self.buffered: list[tuple[DataStream, SharedSink]] = []

    def add(self, stream: DataStream, name: str, sink: FlinkSink) -> None:
        """Write ``stream`` to ``sink``, in the step ``name``."""
        stream = self._within_limits(stream, name, sink)
        # A record that enters counts as written: the checkpoint that holds the count commits it.
        stream = self.accounting.count(stream, name, "read", "written")
        if self.in_one_transaction and isinstance(sink, SharedSink):
            self.buffered.append((stream, sink))
            return
        prefix = f"sage-{self.run}-{name}"
        j_sink = sink.flink_sink(get_gateway().jvm, transaction_prefix=prefix)
        stream.sink_to(PySink(j_sink)).name(name).uid(name)

    def add_transaction(self) -> None:
        """One sink in place of several, so that all output shares one transaction."""
        if not self.buffered:
            return
        jvm = get_gateway().jvm
        streams, topics = jvm.java.util.ArrayList(), jvm.java.util.ArrayList()
        for stream, sink in self.buffered:
            streams.add(stream._j_data_stream)
            topics.add(sink.topic)
        name = END_OF_INPUT_BUFFER
        native = jvm.org.sage.flink.connector.EndOfInputBufferOperator
        buffer = DataStream(native.wire(streams, topics, name))
        topics_sink = self.buffered[0][1].topics_sink()
        native_sink = topics_sink.flink_sink(jvm, transaction_prefix=f"sage-{self.run}")
        sink = buffer.sink_to(PySink(native_sink)).name(f"{name}.write").uid(f"{name}.write")
        sink.set_parallelism(1)

    def _within_limits(self, stream: DataStream, name: str, sink: FlinkSink) -> DataStream:
        if not isinstance(sink, LimitedSink):
            return stream
        jvm, source = get_gateway().jvm, stream._j_data_stream
        out = sink.within_limits(jvm, source, name, job=self.job, run=self.run)
        if name != DEAD_LETTERS:
            self.failed.append(failed_stream(out))
        return DataStream(out).name(operator_name(f"{name}.limits"))
