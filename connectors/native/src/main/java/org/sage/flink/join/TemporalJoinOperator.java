package org.sage.flink.join;

import java.util.List;
import java.util.TreeMap;
import org.apache.flink.api.common.state.KeyedStateStore;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.runtime.state.VoidNamespace;
import org.apache.flink.runtime.state.VoidNamespaceSerializer;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.InternalTimer;
import org.apache.flink.streaming.api.operators.InternalTimerService;
import org.apache.flink.streaming.api.operators.Triggerable;
import org.apache.flink.streaming.api.operators.TwoInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.wire.RecordFields;

/**
 * Operator that gives each left record the value of its key that was valid at its time; the right
 * input is the changelog of these values.
 *
 * <p>A left record waits until the watermark of both inputs has passed its time: then no version of
 * an earlier time can follow. Of the versions up to that watermark only the newest one is kept, and
 * not even that one where it is a delete.
 *
 * <p>As in {@link IntervalJoinOperator}, a record is late by the watermark of its own input, and the
 * watermarks are state.
 */
public final class TemporalJoinOperator extends AbstractStreamOperator<byte[]>
        implements TwoInputStreamOperator<byte[], byte[], byte[]>,
                Triggerable<String, VoidNamespace> {

    private static final long serialVersionUID = 1L;

    /** The values of a key by the time from which each is valid. */
    static final MapStateDescriptor<Long, byte[]> VERSIONS =
            new MapStateDescriptor<>(
                    "versions",
                    Types.LONG,
                    PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    /** Marks a delete: no MessagePack value has no bytes. */
    private static final byte[] DELETED = {};

    private static final byte[] NIL = {(byte) 0xc0};

    private final JoinConfig settings;

    private transient KeptRecords left;
    private transient MapState<Long, byte[]> versions;
    private transient InternalTimerService<VoidNamespace> timers;
    private transient JoinWatermarks watermarks;
    private transient RecordFields value;

    TemporalJoinOperator(JoinConfig settings) {
        this.settings = settings;
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        KeyedStateStore keyed = context.getKeyedStateStore();
        left = new KeptRecords(keyed.getMapState(KeptRecords.descriptor("left")));
        versions = keyed.getMapState(VERSIONS);
        watermarks = JoinWatermarks.restore(context, JoinWatermarks.TEMPORAL);
    }

    @Override
    public void open() throws Exception {
        super.open();
        value = new RecordFields(List.of(""));
        timers = getInternalTimerService("times", VoidNamespaceSerializer.INSTANCE, this);
    }

    @Override
    public void processElement1(StreamRecord<byte[]> element) throws Exception {
        RecordFields.Found found = value.read(element.getValue());
        if (isInTime(element, found, true)) {
            left.add(found.timestampMs(), element.getValue(), false);
        }
    }

    @Override
    public void processElement2(StreamRecord<byte[]> element) throws Exception {
        RecordFields.Found found = value.read(element.getValue());
        if (isInTime(element, found, false)) {
            byte[] packed = found.fields()[0] == null ? NIL : found.fields()[0];
            versions.put(found.timestampMs(), found.isDelete() ? DELETED : packed);
        }
    }

    /** Whether the record is in time, and then a timer is set; otherwise it is sent as late. */
    private boolean isInTime(
            StreamRecord<byte[]> element, RecordFields.Found found, boolean isLeft) {
        if (watermarks.havePassed(isLeft, found.timestampMs())) {
            output.collect(JoinStep.LATE, element);
            return false;
        }
        timers.registerEventTimeTimer(VoidNamespace.INSTANCE, found.timestampMs());
        return true;
    }

    /** The left records of one time and key, and the end of the versions before it. */
    @Override
    public void onEventTime(InternalTimer<String, VoidNamespace> timer) throws Exception {
        long timestampMs = timer.getTimestamp();
        byte[] valid = validAt(timestampMs);
        for (byte[] record : left.remove(timestampMs)) {
            if (valid != null || settings.leftAlone()) {
                JoinedRecord.ofLeft(JoinSide.of(record), valid).emit(output, settings.failed());
            }
        }
    }

    /** The value at this time, null without one; what is older than it is removed. */
    private byte[] validAt(long timestampMs) throws Exception {
        TreeMap<Long, byte[]> until = new TreeMap<>();
        for (var version : versions.entries()) {
            if (version.getKey() <= timestampMs) {
                until.put(version.getKey(), version.getValue());
            }
        }
        if (until.isEmpty()) {
            return null;
        }
        byte[] valid = until.lastEntry().getValue();
        if (valid.length > 0) {
            until.pollLastEntry();
        }
        for (long old : until.keySet()) {
            versions.remove(old);
        }
        return valid.length > 0 ? valid : null;
    }

    @Override
    public void onProcessingTime(InternalTimer<String, VoidNamespace> timer) {
        throw new IllegalStateException("a join has timers of event time only");
    }

    @Override
    public void processWatermark1(Watermark mark) throws Exception {
        watermarks.advanceLeft(mark.getTimestamp());
        super.processWatermark1(mark);
    }

    @Override
    public void processWatermark2(Watermark mark) throws Exception {
        watermarks.advanceRight(mark.getTimestamp());
        super.processWatermark2(mark);
    }

    /** The watermark of both inputs, without those that are idle. */
    @Override
    public void processWatermark(Watermark mark) throws Exception {
        super.processWatermark(new Watermark(watermarks.advanceBoth(mark.getTimestamp())));
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        watermarks.save();
    }
}
