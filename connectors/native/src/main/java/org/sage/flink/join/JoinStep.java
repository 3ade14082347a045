package org.sage.flink.join;

import java.util.List;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.TwoInputStreamOperator;
import org.apache.flink.util.OutputTag;
import org.sage.flink.keyed.KeyedInputOperator;
import org.sage.flink.keyed.Keys;
import org.sage.flink.wire.VectorField;

/**
 * A join: {@link #checked} refuses what an input cannot take, {@link #wire} and {@link #wireTemporal}
 * join what is left, and {@link #late} are the records that were too late.
 */
public final class JoinStep {

    private static final PrimitiveArrayTypeInfo<byte[]> BYTES =
            PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;

    static final OutputTag<byte[]> LATE = new OutputTag<>("late", BYTES);

    private JoinStep() {}

    /**
     * The records that the join takes, and counter deltas of those that it refuses.
     *
     * @param side left or right
     * @param takesDeletes whether the records may be deletes of their key
     */
    public static SingleOutputStreamOperator<byte[]> checked(
            DataStream<byte[]> in, String config, String side, boolean takesDeletes) {
        JoinConfig settings = JoinConfig.of(config);
        String name = settings.step() + "." + side + "-input";
        List<VectorField> vectors =
                settings.similar() == null ? List.of() : List.of(settings.similar().field());
        return KeyedInputOperator.wire(
                in, name, settings.failed(), side + "_read", takesDeletes, List.of(), vectors);
    }

    /** The pairs of an interval join, and counter deltas of those too large for a record. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> left, DataStream<byte[]> right, String config) {
        JoinConfig settings = JoinConfig.of(config);
        return wire(left, right, settings, new IntervalJoinOperator(settings));
    }

    /** The left records with the value of their version, and counter deltas as in {@link #wire}. */
    public static SingleOutputStreamOperator<byte[]> wireTemporal(
            DataStream<byte[]> left, DataStream<byte[]> right, String config) {
        JoinConfig settings = JoinConfig.of(config);
        return wire(left, right, settings, new TemporalJoinOperator(settings));
    }

    private static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> left,
            DataStream<byte[]> right,
            JoinConfig settings,
            TwoInputStreamOperator<byte[], byte[], byte[]> operator) {
        return left.keyBy(new Keys.OfRecord(), Types.STRING)
                .connect(right.keyBy(new Keys.OfRecord(), Types.STRING))
                .transform(settings.step(), BYTES, operator)
                .uid(settings.step());
    }

    /** The late records of a stream that one of them made. */
    public static DataStream<byte[]> late(SingleOutputStreamOperator<byte[]> joined) {
        return joined.getSideOutput(LATE);
    }

    /** The late records as dead letters. */
    public static SingleOutputStreamOperator<byte[]> lateLetters(
            DataStream<byte[]> late, String config, String reason) {
        JoinConfig settings = JoinConfig.of(config);
        String name = settings.step() + ".late";
        return late.map(record -> settings.failed().letter(record, reason), BYTES)
                .name(name)
                .uid(name);
    }
}
