package org.sage.flink.join;

import java.util.List;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple4;
import org.apache.flink.runtime.state.StateInitializationContext;

/**
 * The watermarks of both inputs of a join, and the one of both together.
 *
 * <p>They are state: after a restart the same records are late before the sources have sent any
 * watermark again. After a rescale they are those of the subtask that was furthest behind, because a
 * key may come from it.
 */
final class JoinWatermarks {

    /** In place of a span: a temporal join keeps no record for a time that is set. */
    static final long TEMPORAL = -1;

    private final ListState<Tuple4<Long, Long, Long, Long>> state;
    private final long spanMs;
    private final boolean hadOtherSpan;

    private long leftMs = Long.MIN_VALUE;
    private long rightMs = Long.MIN_VALUE;
    private long bothMs = Long.MIN_VALUE;

    private JoinWatermarks(ListState<Tuple4<Long, Long, Long, Long>> state, long spanMs)
            throws Exception {
        this.state = state;
        this.spanMs = spanMs;
        Tuple4<Long, Long, Long, Long> least = null;
        for (Tuple4<Long, Long, Long, Long> one : state.get()) {
            if (least == null) {
                least = one;
            } else {
                least.f0 = Math.min(least.f0, one.f0);
                least.f1 = Math.min(least.f1, one.f1);
                least.f2 = Math.min(least.f2, one.f2);
            }
        }
        if (least != null && (least.f3 == TEMPORAL) != (spanMs == TEMPORAL)) {
            throw new IllegalStateException(
                    "the savepoint holds an interval join or a temporal join where the pipeline has"
                            + " the other one: give the step another name, and give up the state of"
                            + " the former one with --drop-state");
        }
        hadOtherSpan = least != null && least.f3 != spanMs;
        if (least != null) {
            leftMs = least.f0;
            rightMs = least.f1;
            bothMs = least.f2;
        }
    }

    /** Those of the checkpoint, if there is one; {@code spanMs} is how long records are kept. */
    static JoinWatermarks restore(StateInitializationContext context, long spanMs)
            throws Exception {
        return new JoinWatermarks(
                context.getOperatorStateStore()
                        .getUnionListState(
                                new ListStateDescriptor<>(
                                        "watermarks",
                                        Types.TUPLE(
                                                Types.LONG, Types.LONG, Types.LONG, Types.LONG))),
                spanMs);
    }

    /** Whether records were kept for another time when the restored checkpoint was taken. */
    boolean hadOtherSpan() {
        return hadOtherSpan;
    }

    /** Whether the watermark of this input, or of both, has reached {@code lastMs}. */
    boolean havePassed(boolean isLeft, long lastMs) {
        return lastMs <= Math.max(isLeft ? leftMs : rightMs, bothMs);
    }

    void advanceLeft(long timestampMs) {
        leftMs = Math.max(leftMs, timestampMs);
    }

    void advanceRight(long timestampMs) {
        rightMs = Math.max(rightMs, timestampMs);
    }

    /** The watermark of both inputs, without those that are idle, when it may be this one. */
    long advanceBoth(long timestampMs) {
        bothMs = Math.max(bothMs, timestampMs);
        return bothMs;
    }

    void save() throws Exception {
        state.update(List.of(Tuple4.of(leftMs, rightMs, bothMs, spanMs)));
    }
}
