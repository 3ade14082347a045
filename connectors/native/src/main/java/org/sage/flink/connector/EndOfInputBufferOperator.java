package org.sage.flink.connector;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
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
 * Wire records for several topics, held back until the end of the input and then sent on at once, in
 * the order of arrival: no barrier can come between them, so one {@code KafkaSink} behind it writes
 * them in one transaction. A bounded job is thus seen as a whole or not at all, wherever it is cut.
 *
 * <p>What is held is operator state: a restart within the job does not ask the pool again.
 */
public final class EndOfInputBufferOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]>, BoundedOneInput {

    private static final long serialVersionUID = 1L;

    private transient ListState<byte[]> state;
    private transient List<byte[]> held;

    /**
     * The streams as one, each record addressed to the topic of its stream, for a sink without a
     * topic of its own. One subtask: several would be several transactions.
     *
     * @throws IllegalArgumentException not as many topics as streams, or none
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
                    streams.get(i).map(new Addressed(topics.get(i))).name(step).uid(step);
            all = all == null ? one : all.union(one);
        }
        return all.transform(
                        name, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO, new EndOfInputBufferOperator())
                .setParallelism(1)
                .uid(name);
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        // The serializer is named: a descriptor by class would take Kryo's word for byte[].
        state =
                context.getOperatorStateStore()
                        .getListState(
                                new ListStateDescriptor<>(
                                        "held",
                                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO));
        held = new ArrayList<>();
        for (byte[] record : state.get()) {
            held.add(record);
        }
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        held.add(element.getValue());
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        state.update(held);
    }

    @Override
    public void endInput() {
        for (byte[] record : held) {
            output.collect(new StreamRecord<>(record));
        }
        held = new ArrayList<>();
    }

    /** A wire record with the topic that {@link KafkaWireSerializationSchema} is to write it to. */
    static final class Addressed implements MapFunction<byte[], byte[]> {

        private static final long serialVersionUID = 1L;

        private final String topic;

        Addressed(String topic) {
            this.topic = topic;
        }

        @Override
        public byte[] map(byte[] element) {
            WireRecord record = WireRecord.decode(element);
            Map<String, byte[]> headers = new LinkedHashMap<>(record.headers());
            headers.put(KafkaWireSerializationSchema.TOPIC, topic.getBytes(java.nio.charset.StandardCharsets.UTF_8));
            return new WireRecord(
                            record.id(),
                            record.value(),
                            record.timestampMs(),
                            record.key(),
                            headers,
                            record.origin())
                    .encode();
        }
    }
}
