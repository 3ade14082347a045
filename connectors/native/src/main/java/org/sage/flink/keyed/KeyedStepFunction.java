package org.sage.flink.keyed;

import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.sage.flink.time.RestoredWatermarkOperator;
import org.sage.flink.wire.CounterDelta;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordFields;

/**
 * A step that lets a record of a key pass, drops it, or refuses it. A record without a key is refused.
 * What does not pass is counted by counter deltas in the output.
 */
abstract class KeyedStepFunction extends KeyedProcessFunction<String, byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private final FailedRecords failed;
    private final List<String> paths;
    private final byte[] dropped;
    private final byte[] deadLettered;

    private transient RecordFields fields;

    /** A step that reads the fields of these paths. */
    KeyedStepFunction(FailedRecords failed, List<String> paths) {
        this.failed = failed;
        this.paths = List.copyOf(paths);
        dropped = CounterDelta.encode(Map.of(failed.step() + ".dropped", 1L));
        deadLettered = CounterDelta.encode(Map.of(failed.step() + ".dead_lettered", 1L));
    }

    /** Appends the function to the stream, with the step's name as its uid. */
    static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, KeyedStepFunction function) {
        String step = function.failed.step();
        return RestoredWatermarkOperator.keyBy(in, new Keys.OfRecord(), step + ".watermark")
                .process(function, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO)
                .name(step)
                .uid(step);
    }

    /** What becomes of a record that has a key. */
    abstract void process(
            byte[] record, RecordFields.Found found, Context context, Collector<byte[]> out)
            throws Exception;

    @Override
    public void open(OpenContext context) throws Exception {
        fields = new RecordFields(paths);
    }

    @Override
    public final void processElement(byte[] record, Context context, Collector<byte[]> out)
            throws Exception {
        RecordFields.Found found = fields.read(record);
        String flaw = Keys.flaw(found);
        if (flaw.isEmpty()) {
            process(record, found, context, out);
        } else {
            refuse(record, flaw, context, out);
        }
    }

    final void drop(Collector<byte[]> out) {
        out.collect(dropped);
    }

    final void refuse(byte[] record, String reason, Context context, Collector<byte[]> out) {
        context.output(FailedRecords.TAG, failed.letter(record, reason));
        out.collect(deadLettered);
    }
}
