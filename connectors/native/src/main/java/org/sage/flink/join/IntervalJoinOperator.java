package org.sage.flink.join;

import java.util.List;
import java.util.function.Predicate;
import java.util.stream.Stream;
import org.apache.flink.api.common.state.KeyedStateStore;
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

/**
 * Operator that pairs records of one key whose times are near, and emits those that met no other.
 *
 * <p>A record is late by the watermark of its own input, so what is late does not depend on how far
 * one input is ahead of the other. Every record that is not late meets all of those of the other
 * input in its interval: each is kept until the watermark of both inputs is {@code before + after}
 * ahead of it, when no such record can follow.
 *
 * <p>The watermark of the output is held back behind all results that may follow.
 *
 * <p>The interval and the kind of the join may change with a savepoint, and then apply to what is
 * kept.
 */
public final class IntervalJoinOperator extends AbstractStreamOperator<byte[]>
        implements TwoInputStreamOperator<byte[], byte[], byte[]>,
                Triggerable<String, VoidNamespace> {

    private static final long serialVersionUID = 1L;

    private final JoinConfig settings;

    private transient KeptRecords left;
    private transient KeptRecords right;
    private transient InternalTimerService<VoidNamespace> timers;
    private transient JoinWatermarks watermarks;

    IntervalJoinOperator(JoinConfig settings) {
        this.settings = settings;
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        KeyedStateStore keyed = context.getKeyedStateStore();
        left = new KeptRecords(keyed.getMapState(KeptRecords.descriptor("left")));
        right = new KeptRecords(keyed.getMapState(KeptRecords.descriptor("right")));
        watermarks = JoinWatermarks.restore(context, settings.spanMs());
    }

    @Override
    public void open() throws Exception {
        super.open();
        timers = getInternalTimerService("ends", VoidNamespaceSerializer.INSTANCE, this);
        if (watermarks.hadOtherSpan()) {
            registerEnds("left");
            registerEnds("right");
        }
    }

    /** Registers the ends of all records of a savepoint in which the interval was another one. */
    private void registerEnds(String name) throws Exception {
        getKeyedStateBackend()
                .applyToAllKeys(
                        VoidNamespace.INSTANCE,
                        VoidNamespaceSerializer.INSTANCE,
                        KeptRecords.descriptor(name),
                        (key, kept) -> {
                            for (long timestampMs : kept.keys()) {
                                registerEnd(timestampMs);
                            }
                        });
    }

    private void registerEnd(long timestampMs) {
        timers.registerEventTimeTimer(VoidNamespace.INSTANCE, plus(timestampMs, settings.spanMs()));
    }

    @Override
    public void processElement1(StreamRecord<byte[]> element) throws Exception {
        process(element, true);
    }

    @Override
    public void processElement2(StreamRecord<byte[]> element) throws Exception {
        process(element, false);
    }

    private void process(StreamRecord<byte[]> element, boolean isLeft) throws Exception {
        JoinSide own = JoinSide.of(element.getValue());
        long timestampMs = own.timestampMs();
        long earlierMs = isLeft ? settings.beforeMs() : settings.afterMs();
        long laterMs = isLeft ? settings.afterMs() : settings.beforeMs();
        long toMs = plus(timestampMs, laterMs);
        if (watermarks.havePassed(isLeft, toMs)) {
            output.collect(JoinStep.LATE, element);
            return;
        }
        Similar similar = settings.similar();
        Predicate<byte[]> matches =
                similar == null ? record -> true : similar.query(element.getValue())::matches;
        long fromMs = minus(timestampMs, earlierMs);
        List<byte[]> met = (isLeft ? right : left).meet(fromMs, toMs, matches);
        for (byte[] record : met) {
            JoinSide other = JoinSide.of(record);
            emit(isLeft ? own : other, isLeft ? other : own);
        }
        (isLeft ? left : right).add(timestampMs, element.getValue(), !met.isEmpty());
        registerEnd(timestampMs);
    }

    private void emit(JoinSide leftSide, JoinSide rightSide) {
        JoinedRecord.of(settings.step(), leftSide, rightSide).emit(output, settings.failed());
    }

    /** The end of the records of one time and key. */
    @Override
    public void onEventTime(InternalTimer<String, VoidNamespace> timer) throws Exception {
        for (long timestampMs : endedAt(timer.getTimestamp())) {
            for (byte[] record : left.remove(timestampMs)) {
                if (settings.leftAlone()) {
                    emit(JoinSide.of(record), null);
                }
            }
            for (byte[] record : right.remove(timestampMs)) {
                if (settings.rightAlone()) {
                    emit(null, JoinSide.of(record));
                }
            }
        }
    }

    /** The times that end there: one, but at the end of all time those that have no end before. */
    private List<Long> endedAt(long endMs) throws Exception {
        if (endMs != Long.MAX_VALUE) {
            return List.of(endMs - settings.spanMs());
        }
        return Stream.concat(left.times().stream(), right.times().stream())
                .distinct()
                .sorted()
                .toList();
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
        long watermarkMs = watermarks.advanceBoth(mark.getTimestamp());
        getTimeServiceManager().orElseThrow().advanceWatermark(new Watermark(watermarkMs));
        boolean isLast = watermarkMs == Long.MAX_VALUE;
        long ownMs = isLast ? watermarkMs : minus(watermarkMs, settings.outputDelayMs());
        output.emitWatermark(new Watermark(ownMs));
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        watermarks.save();
    }

    /** The sum, or the last time of all. */
    private static long plus(long timeMs, long moreMs) {
        return timeMs > Long.MAX_VALUE - moreMs ? Long.MAX_VALUE : timeMs + moreMs;
    }

    /** The difference, or the first time of all. */
    private static long minus(long timeMs, long lessMs) {
        return timeMs < Long.MIN_VALUE + lessMs ? Long.MIN_VALUE : timeMs - lessMs;
    }
}
