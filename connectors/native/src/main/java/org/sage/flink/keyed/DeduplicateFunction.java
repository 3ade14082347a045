package org.sage.flink.keyed;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.sage.flink.wire.CounterDelta;
import org.sage.flink.wire.RecordFields;

/**
 * The first record of each id, or of each key, within a time; the others are dropped, and counted by
 * counter deltas in the output. A record without a key is no duplicate.
 */
public final class DeduplicateFunction extends KeyedProcessFunction<String, byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private final long withinMs;
    private final byte[] dropped;

    private transient ValueState<Boolean> seen;

    DeduplicateFunction(String step, long withinMs) {
        this.withinMs = withinMs;
        dropped = CounterDelta.encode(Map.of(step + ".dropped", 1L));
    }

    /** Appends this function to the stream, with the step's name as its uid. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String step, String by, long withinMs) {
        KeySelector<byte[], String> selector = by.equals("key") ? new KeyOrId() : new Id();
        return in.keyBy(selector, Types.STRING)
                .process(
                        new DeduplicateFunction(step, withinMs),
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO)
                .name(step)
                .uid(step);
    }

    @Override
    public void open(OpenContext context) {
        ValueStateDescriptor<Boolean> descriptor = new ValueStateDescriptor<>("seen", Types.BOOLEAN);
        descriptor.enableTimeToLive(
                StateTtlConfig.newBuilder(Duration.ofMillis(withinMs))
                        .cleanupIncrementally(10, true)
                        .build());
        seen = getRuntimeContext().getState(descriptor);
    }

    @Override
    public void processElement(byte[] record, Context context, Collector<byte[]> out)
            throws Exception {
        if (seen.value() == null) {
            seen.update(true);
            out.collect(record);
        } else {
            out.collect(dropped);
        }
    }

    /** The record's id. */
    private static class Id implements KeySelector<byte[], String> {

        private static final long serialVersionUID = 1L;

        private transient RecordFields fields;

        RecordFields.Found read(byte[] record) {
            if (fields == null) {
                fields = new RecordFields(List.of());
            }
            return fields.read(record);
        }

        @Override
        public String getKey(byte[] record) {
            return read(record).id();
        }
    }

    /** The record's key, or its id where it has no key; the two are distinct. */
    private static final class KeyOrId extends Id {

        private static final long serialVersionUID = 1L;

        @Override
        public String getKey(byte[] record) {
            RecordFields.Found found = read(record);
            return found.key() == null ? "id " + found.id() : "key " + Keys.text(found.key());
        }
    }
}
