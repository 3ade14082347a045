package org.sage.flink.connector;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.flink.api.common.functions.MapFunction;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.wire.WireRecord;

/**
 * Operator that buffers wire records for several topics until the end of the input and then emits
 * them in the order of arrival. No barrier can come between them, so the one {@code KafkaSink} after
 * it writes them in one transaction: readers see all output of a bounded job or no output at all,
 * wherever the job is interrupted.
 *
 * <p>Buffered records are operator state: a restart within the job does not repeat calls to the
 * pool.
 */
public final class EndOfInputBufferOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]>, BoundedOneInput {

    private static final long serialVersionUID = 1L;

    private transient ListState<byte[]> state;
    private transient List<byte[]> buffer;

    /**
     * The union of the streams through one buffer, for a sink without a fixed topic: each record gets
     * the topic of its stream as a header. One subtask, because several would write several
     * transactions.
     *
     * @throws IllegalArgumentException on an empty list, or on lists of different lengths
     */
    public static SingleOutputStreamOperator<byte[]> wire(
            List<DataStream<byte[]>> streams, List<String> topics, String name) {
        if (streams.isEmpty() || streams.size() != topics.size()) {
            throw new IllegalArgumentException(
                    name + ": needs a topic for each stream, got " + topics + " for " + streams.size());
        }
        DataStream<byte[]> all = null;
        for (int i = 0; i < streams.size(); i++) {
            String step = name + "." + i;
            DataStream<byte[]> one =
                    streams.get(i).map(new TopicHeaderFunction(topics.get(i))).name(step).uid(step);
            all = all == null ? one : all.union(one);
        }
        return all.transform(
                        name,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new EndOfInputBufferOperator())
                .setParallelism(1)
                .uid(name);
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        // The serializer is explicit: a descriptor by class would use Kryo for byte[].
        state =
                context.getOperatorStateStore()
                        .getListState(
                                new ListStateDescriptor<>(
                                        "held",
                                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO));
        buffer = new ArrayList<>();
        for (byte[] record : state.get()) {
            buffer.add(WireRecord.upgrade(record));
        }
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        buffer.add(element.getValue());
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        state.update(buffer);
    }

    @Override
    public void endInput() {
        for (byte[] record : buffer) {
            output.collect(new StreamRecord<>(record));
        }
        buffer = new ArrayList<>();
    }

    /** Adds the header that names the topic for {@link KafkaWireSerializationSchema}. */
    static final class TopicHeaderFunction implements MapFunction<byte[], byte[]> {

        private static final long serialVersionUID = 1L;

        private final String topic;

        TopicHeaderFunction(String topic) {
            this.topic = topic;
        }

        @Override
        public byte[] map(byte[] element) {
            byte[] header = topic.getBytes(StandardCharsets.UTF_8);
            return WireRecord.decode(element)
                    .withHeader(KafkaWireSerializationSchema.TOPIC, header)
                    .encode();
        }
    }
}
