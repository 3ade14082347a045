package org.sage.flink.keyed;

import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.StateTtlConfig;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.util.Collector;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordFields;

/**
 * The records of each key whose value, or a field of it, differs from that of the last one that
 * passed. The state is its MessagePack, or the SHA-256 of a longer one.
 */
public final class ChangesOnlyFunction extends KeyedStepFunction {

    private static final long serialVersionUID = 1L;

    private static final byte[] NIL = {(byte) 0xc0};
    private static final int DIGEST_BYTES = 32;

    /** 0: the state never expires. */
    private final long ttlMs;

    private transient ValueState<byte[]> last;

    ChangesOnlyFunction(FailedRecords failed, String field, long ttlMs) {
        super(failed, List.of(field));
        this.ttlMs = ttlMs;
    }

    /** Appends this function to the stream, with the step's name as its uid. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String step, String job, String run, String field, long ttlMs) {
        FailedRecords failed = new FailedRecords(step, job, run);
        return wire(in, new ChangesOnlyFunction(failed, field, ttlMs));
    }

    @Override
    public void open(OpenContext context) throws Exception {
        super.open(context);
        ValueStateDescriptor<byte[]> descriptor =
                new ValueStateDescriptor<>(
                        "last", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);
        if (ttlMs > 0) {
            descriptor.enableTimeToLive(
                    StateTtlConfig.newBuilder(Duration.ofMillis(ttlMs))
                            .cleanupIncrementally(10, true)
                            .build());
        }
        last = getRuntimeContext().getState(descriptor);
    }

    @Override
    void process(byte[] record, RecordFields.Found found, Context context, Collector<byte[]> out)
            throws Exception {
        byte[] packed = found.fields()[0] == null ? NIL : found.fields()[0];
        byte[] value = packed.length <= DIGEST_BYTES ? packed : digest(packed);
        if (Arrays.equals(value, last.value())) {
            drop(out);
        } else {
            last.update(value);
            out.collect(record);
        }
    }

    private static byte[] digest(byte[] packed) throws NoSuchAlgorithmException {
        return MessageDigest.getInstance("SHA-256").digest(packed);
    }
}
