package org.sage.flink.keyed;

import java.util.List;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.util.Collector;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordFields;

/**
 * Limits the records of each key and window of event time; the others are dropped or refused.
 * The state is the count of each window that the watermark has not passed.
 */
public final class RateLimitFunction extends KeyedStepFunction {

    private static final long serialVersionUID = 1L;

    private final long recordsMax;
    private final long sizeMs;
    /** Why a record over the limit, and one whose window has ended, is refused; null: it is dropped. */
    private final String over;
    private final String late;

    private transient MapState<Long, Long> passed;

    RateLimitFunction(
            FailedRecords failed, long recordsMax, long sizeMs, String over, String late) {
        super(failed, List.of());
        this.recordsMax = recordsMax;
        this.sizeMs = sizeMs;
        this.over = over;
        this.late = late;
    }

    /** Appends this function to the stream, with the step's name as its uid. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in,
            String step,
            String job,
            String run,
            long recordsMax,
            long sizeMs,
            String over,
            String late) {
        FailedRecords failed = new FailedRecords(step, job, run);
        return wire(in, new RateLimitFunction(failed, recordsMax, sizeMs, over, late));
    }

    @Override
    public void open(OpenContext context) throws Exception {
        super.open(context);
        passed =
                getRuntimeContext()
                        .getMapState(new MapStateDescriptor<>("passed", Types.LONG, Types.LONG));
    }

    @Override
    void process(byte[] record, RecordFields.Found found, Context context, Collector<byte[]> out)
            throws Exception {
        long start = found.timestampMs() - Math.floorMod(found.timestampMs(), sizeMs);
        long lastMs = start + sizeMs - 1;
        if (lastMs <= context.timerService().currentWatermark()) {
            reject(record, late, context, out);
            return;
        }
        Long before = passed.get(start);
        if (before == null) {
            context.timerService().registerEventTimeTimer(lastMs);
        }
        long count = before == null ? 0 : before;
        if (count == recordsMax) {
            reject(record, over, context, out);
        } else {
            passed.put(start, count + 1);
            out.collect(record);
        }
    }

    @Override
    public void onTimer(long timestampMs, OnTimerContext context, Collector<byte[]> out)
            throws Exception {
        passed.remove(timestampMs + 1 - sizeMs);
    }

    private void reject(byte[] record, String reason, Context context, Collector<byte[]> out) {
        if (reason == null) {
            drop(out);
        } else {
            refuse(record, reason, context, out);
        }
    }
}
