package org.sage.flink.time;

import java.util.List;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.sage.flink.wire.RecordChange;
import org.sage.flink.wire.RecordFields;

/**
 * Operator that gives records the time of the clock at which they pass, and makes watermarks of it.
 *
 * <p>The time never decreases: the latest one of all subtasks is state, so that a clock that was set
 * back, or that of another machine after a restart, makes no record late.
 */
public final class ProcessingTimeOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    static final long INTERVAL_MS = 200;

    private transient RecordFields fields;
    private transient ListState<Long> state;
    private transient long latestMs;
    private transient long watermark;

    /** Appends this operator to the stream, with the step's name as its uid. */
    public static SingleOutputStreamOperator<byte[]> wire(DataStream<byte[]> in, String step) {
        return in.transform(
                        step,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new ProcessingTimeOperator())
                .uid(step);
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        state =
                context.getOperatorStateStore()
                        .getUnionListState(
                                new ListStateDescriptor<>("latest", LongSerializer.INSTANCE));
        latestMs = Long.MIN_VALUE;
        watermark = Long.MIN_VALUE;
        for (long saved : state.get()) {
            latestMs = Math.max(latestMs, saved);
        }
    }

    @Override
    public void open() throws Exception {
        super.open();
        fields = new RecordFields(List.of());
        nextTimer();
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        byte[] record = element.getValue();
        byte[] timed = RecordChange.withTimestamp(record, fields.read(record), nowMs());
        output.collect(new StreamRecord<>(timed, latestMs));
    }

    private long nowMs() {
        latestMs = Math.max(latestMs, getProcessingTimeService().getCurrentProcessingTime());
        return latestMs;
    }

    private void nextTimer() {
        long now = getProcessingTimeService().getCurrentProcessingTime();
        getProcessingTimeService().registerTimer(now + INTERVAL_MS, this::onTimer);
    }

    private void onTimer(long ms) {
        long before = nowMs() - 1; // records of this millisecond may follow
        if (before > watermark) {
            watermark = before;
            output.emitWatermark(new Watermark(before));
        }
        nextTimer();
    }

    /** The last one ends the stream; all others are made here. */
    @Override
    public void processWatermark(Watermark mark) throws Exception {
        if (mark.equals(Watermark.MAX_WATERMARK)) {
            watermark = mark.getTimestamp();
            super.processWatermark(mark);
        }
    }

    @Override
    public void processWatermarkStatus(WatermarkStatus status) {
        // The clock advances without records too.
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        state.update(latestMs == Long.MIN_VALUE ? List.of() : List.of(latestMs));
    }
}
