package org.sage.flink.time;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.watermarkstatus.WatermarkStatus;
import org.sage.flink.wire.FailedRecords;
import org.sage.flink.wire.RecordChange;
import org.sage.flink.wire.RecordFields;

/**
 * Operator that gives records their event time and makes the watermarks of the stream.
 *
 * <p>A record without a time, or of a time too far in the future, is a dead letter: one such record
 * would make all others late.
 *
 * <p>Watermarks are those of {@link PartitionWatermarks}. The ones of the source are not forwarded:
 * they say only that every partition of the source has been heard, or is idle, and until then none is
 * made. The times of the partitions are state: after a restart the same records are late as
 * without it, see {@link RestoredWatermarkOperator}.
 */
public final class EventTimeOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    /** The key of the watermark among the partitions in the state; no topic has this name. */
    private static final String WATERMARK = "\0";

    private static final int CHECKS_PER_IDLE_TIME = 4;
    private static final int MS_PER_S = 1_000;

    private final EventTimeConfig settings;
    private final FailedRecords failed;

    private transient RecordFields fields;
    private transient PartitionWatermarks watermarks;
    private transient ListState<Tuple2<String, Long>> state;
    private transient boolean sourceIsHeard;
    private transient boolean isIdle;
    private transient long startMs;

    EventTimeOperator(EventTimeConfig settings) {
        this.settings = settings;
        failed = new FailedRecords(settings.step(), settings.job(), settings.run());
    }

    /** Appends this operator to the stream, with the step's name as its uid. */
    public static SingleOutputStreamOperator<byte[]> wire(DataStream<byte[]> in, String config) {
        EventTimeConfig settings = EventTimeConfig.of(config);
        return in.transform(
                        settings.step(),
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new EventTimeOperator(settings))
                .uid(settings.step());
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        watermarks = new PartitionWatermarks(settings.outOfOrderMs());
        state =
                context.getOperatorStateStore()
                        .getUnionListState(
                                new ListStateDescriptor<>(
                                        "partitions", Types.TUPLE(Types.STRING, Types.LONG)));
        if (context.isRestored()) {
            restore();
        }
    }

    private void restore() throws Exception {
        Map<String, Long> latest = new HashMap<>();
        long watermark = Long.MAX_VALUE;
        for (Tuple2<String, Long> entry : state.get()) {
            if (entry.f0.equals(WATERMARK)) {
                watermark = Math.min(watermark, entry.f1);
            } else {
                latest.merge(entry.f0, entry.f1, Math::max);
            }
        }
        if (watermark != Long.MAX_VALUE) {
            watermarks.restore(latest, watermark);
        }
    }

    @Override
    public void open() throws Exception {
        super.open();
        boolean hasField = !settings.field().isEmpty();
        fields = new RecordFields(hasField ? List.of(settings.field()) : List.of());
        sourceIsHeard = !settings.sourceHasWatermarks();
        startMs = getProcessingTimeService().getCurrentProcessingTime();
        checkIdleness();
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        byte[] record = element.getValue();
        RecordFields.Found found = fields.read(record);
        long nowMs = getProcessingTimeService().getCurrentProcessingTime();
        long timestampMs;
        try {
            timestampMs = timestampMs(found, nowMs);
        } catch (IllegalArgumentException e) {
            failed.refuse(output, record, e.getMessage());
            return;
        }
        if (isIdle) {
            isIdle = false;
            output.emitWatermarkStatus(WatermarkStatus.ACTIVE);
        }
        boolean changed = timestampMs != found.timestampMs();
        byte[] timed = changed ? RecordChange.withTimestamp(record, found, timestampMs) : record;
        output.collect(new StreamRecord<>(timed, timestampMs));
        watermarks.add(found.origin(), timestampMs, nowMs);
        emit();
    }

    /** Without all partitions a watermark would be that of the partitions that were read first. */
    private void emit() {
        if (sourceIsHeard && watermarks.advance()) {
            output.emitWatermark(new Watermark(watermarks.current()));
        }
    }

    private long timestampMs(RecordFields.Found found, long nowMs) {
        long timestampMs = settings.timestampMs(found);
        if (timestampMs - nowMs > settings.aheadMs()) {
            throw new IllegalArgumentException(
                    "its event time, "
                            + timestampMs
                            + " ms, is more than "
                            + settings.aheadMs() / MS_PER_S
                            + " s (ahead_s) ahead of the clock; is its unit "
                            + settings.unit()
                            + "?");
        }
        return timestampMs;
    }

    /** The last one ends the stream; all others are made here. */
    @Override
    public void processWatermark(Watermark mark) throws Exception {
        if (mark.equals(Watermark.MAX_WATERMARK)) {
            super.processWatermark(mark);
        } else if (!sourceIsHeard) {
            sourceIsHeard = true;
            emit();
        }
    }

    @Override
    public void processWatermarkStatus(WatermarkStatus status) {
        // Whether this operator's output is idle is decided by its own records.
    }

    private void checkIdleness() {
        long nowMs = getProcessingTimeService().getCurrentProcessingTime();
        long next = nowMs + Math.max(1, settings.idleMs() / CHECKS_PER_IDLE_TIME);
        getProcessingTimeService().registerTimer(next, this::onTimer);
    }

    private void onTimer(long nowMs) {
        long sinceMs = nowMs - settings.idleMs();
        boolean idle = watermarks.allIdle(sinceMs) && startMs <= sinceMs;
        if (idle && !isIdle) {
            isIdle = true;
            output.emitWatermarkStatus(WatermarkStatus.IDLE);
        } else if (!idle) {
            emit();
        }
        checkIdleness();
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        List<Tuple2<String, Long>> entries = new ArrayList<>();
        watermarks.latest().forEach((name, ms) -> entries.add(Tuple2.of(name, ms)));
        if (!isIdle) {
            entries.add(Tuple2.of(WATERMARK, watermarks.current()));
        }
        state.update(entries);
    }
}
