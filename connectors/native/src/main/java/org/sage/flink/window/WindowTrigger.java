package org.sage.flink.window;

import org.apache.flink.api.common.functions.ReduceFunction;
import org.apache.flink.api.common.state.ReducingState;
import org.apache.flink.api.common.state.ReducingStateDescriptor;
import org.apache.flink.api.common.typeutils.base.LongSerializer;
import org.apache.flink.streaming.api.windowing.triggers.Trigger;
import org.apache.flink.streaming.api.windowing.triggers.TriggerResult;
import org.apache.flink.streaming.api.windowing.windows.Window;

/**
 * Emits a window when the watermark passes its end, with each late record after that, and early: when
 * the watermark passes a multiple of a time, or after a number of records. A count window ends with
 * its last record. The end of a window that time does not end is that of the input, whose watermark
 * is the largest number. The Python twins are {@code window_state.py} and {@code
 * count_window_state.py} in {@code sage_flink/flow/stateful}.
 *
 * <p>Flink's own triggers of this kind emit a window once for each multiple that a watermark passes,
 * also where no record was added, and once more right before its end.
 *
 * <p>The state is how many records a count window holds, and when the next early result is due, or how
 * many records are in no result. A timer
 * without such a state, which a merge or an earlier record has left, does nothing. No timer is
 * deleted before the window is: that of the end may have the same time.
 */
final class WindowTrigger<W extends Window> extends Trigger<Object, W> {

    private static final long serialVersionUID = 1L;

    private static final ReducingStateDescriptor<Long> DUE =
            new ReducingStateDescriptor<>("early-due", new Least(), LongSerializer.INSTANCE);
    private static final ReducingStateDescriptor<Long> UNSEEN =
            new ReducingStateDescriptor<>("early-unseen", new Sum(), LongSerializer.INSTANCE);
    private static final ReducingStateDescriptor<Long> RECORDS =
            new ReducingStateDescriptor<>("records", new Sum(), LongSerializer.INSTANCE);

    private final long recordsMax;
    private final long everyMs;
    private final long everyRecords;

    WindowTrigger(WindowConfig config) {
        recordsMax = config.recordsMax();
        everyMs = config.earlyEveryMs();
        everyRecords = config.earlyEveryRecords();
    }

    @Override
    public TriggerResult onElement(
            Object record, long timestampMs, W window, TriggerContext context)
            throws Exception {
        long watermark = context.getCurrentWatermark();
        if (window.maxTimestamp() <= watermark) {
            return TriggerResult.FIRE;
        }
        context.registerEventTimeTimer(window.maxTimestamp());
        if (recordsMax > 0 && isNth(RECORDS, recordsMax, context)) {
            clearEarly(context);
            return TriggerResult.FIRE_AND_PURGE;
        }
        if (everyMs > 0) {
            long least = Math.max(timestampMs, watermark + 1);
            long due = least - Math.floorMod(least, everyMs) + everyMs - 1;
            ReducingState<Long> state = context.getPartitionedState(DUE);
            Long before = state.get();
            if (before == null || due < before) {
                state.add(due);
                context.registerEventTimeTimer(due);
            }
        }
        boolean emits = everyRecords > 0 && isNth(UNSEEN, everyRecords, context);
        return emits ? TriggerResult.FIRE : TriggerResult.CONTINUE;
    }

    /** Whether this is the {@code max}-th record that {@code counter} has counted. */
    private static boolean isNth(
            ReducingStateDescriptor<Long> counter, long max, TriggerContext context)
            throws Exception {
        ReducingState<Long> count = context.getPartitionedState(counter);
        count.add(1L);
        if (count.get() < max) {
            return false;
        }
        count.clear();
        return true;
    }

    private void clearEarly(TriggerContext context) {
        if (everyMs > 0) {
            context.getPartitionedState(DUE).clear();
        }
        if (everyRecords > 0) {
            context.getPartitionedState(UNSEEN).clear();
        }
    }

    @Override
    public TriggerResult onEventTime(long timeMs, W window, TriggerContext context)
            throws Exception {
        if (timeMs == window.maxTimestamp()) {
            return TriggerResult.FIRE;
        }
        boolean hasEnded = window.maxTimestamp() <= context.getCurrentWatermark();
        if (everyMs == 0 || hasEnded) {
            return TriggerResult.CONTINUE; // the cleanup of a window with lateness, or left over
        }
        ReducingState<Long> due = context.getPartitionedState(DUE);
        Long dueMs = due.get();
        if (dueMs == null || dueMs != timeMs) {
            return TriggerResult.CONTINUE;
        }
        due.clear();
        return TriggerResult.FIRE;
    }

    @Override
    public TriggerResult onProcessingTime(long time, W window, TriggerContext context) {
        return TriggerResult.CONTINUE;
    }

    @Override
    public boolean canMerge() {
        return true;
    }

    @Override
    public void onMerge(W window, OnMergeContext context) throws Exception {
        if (window.maxTimestamp() > context.getCurrentWatermark()) {
            context.registerEventTimeTimer(window.maxTimestamp());
        }
        if (everyRecords > 0) {
            context.mergePartitionedState(UNSEEN);
        }
        if (everyMs > 0) {
            context.mergePartitionedState(DUE);
            Long due = context.getPartitionedState(DUE).get();
            if (due != null) {
                context.registerEventTimeTimer(due);
            }
        }
    }

    @Override
    public void clear(W window, TriggerContext context) throws Exception {
        context.deleteEventTimeTimer(window.maxTimestamp());
        if (everyMs > 0) {
            Long due = context.getPartitionedState(DUE).get();
            if (due != null) {
                context.deleteEventTimeTimer(due);
            }
        }
        clearEarly(context);
    }

    @Override
    public String toString() {
        return "WindowTrigger(" + recordsMax + ", " + everyMs + " ms, " + everyRecords + ")";
    }

    private static final class Sum implements ReduceFunction<Long> {

        private static final long serialVersionUID = 1L;

        @Override
        public Long reduce(Long one, Long other) {
            return one + other;
        }
    }

    private static final class Least implements ReduceFunction<Long> {

        private static final long serialVersionUID = 1L;

        @Override
        public Long reduce(Long one, Long other) {
            return Math.min(one, other);
        }
    }
}
