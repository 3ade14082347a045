package org.sage.flink.time;

import java.util.List;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.functions.KeySelector;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamUtils;
import org.apache.flink.streaming.api.datastream.KeyedStream;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Operator between an exchange by key and an operator with event-time state: after a restart its
 * watermark is that of the checkpoint, before the first record.
 *
 * <p>Flink restores windows and timers, but no watermark: until all subtasks before the exchange have
 * sent one, an operator takes every record for an early one. A late record then opens a window
 * that was emitted before, and is emitted once more as its only record.
 *
 * <p>With aligned checkpoints all subtasks behind an exchange have the same watermark at a
 * checkpoint, so after a change of parallelism it is that of each of them.
 */
public final class RestoredWatermarkOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    private transient ListState<Long> state;
    private transient long watermark;
    private transient boolean isRestored;

    /** The stream by key, with this operator, called {@code name}, behind the exchange. */
    public static KeyedStream<byte[], String> keyBy(
            DataStream<byte[]> in, KeySelector<byte[], String> selector, String name) {
        KeyedStream<byte[], String> keyed = in.keyBy(selector, Types.STRING);
        DataStream<byte[]> exchanged =
                new DataStream<>(in.getExecutionEnvironment(), keyed.getTransformation());
        DataStream<byte[]> restored =
                exchanged
                        .transform(
                                name,
                                PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                                new RestoredWatermarkOperator())
                        .uid(name);
        return DataStreamUtils.reinterpretAsKeyedStream(restored, selector, Types.STRING);
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        state =
                context.getOperatorStateStore()
                        .getUnionListState(new ListStateDescriptor<>("watermark", Types.LONG));
        watermark = Long.MIN_VALUE;
        for (long saved : state.get()) {
            watermark = Math.max(watermark, saved);
            isRestored = true;
        }
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        if (isRestored) {
            isRestored = false;
            output.emitWatermark(new Watermark(watermark));
        }
        output.collect(element);
    }

    @Override
    public void processWatermark(Watermark mark) throws Exception {
        if (mark.getTimestamp() > watermark) {
            watermark = mark.getTimestamp();
            isRestored = false;
            super.processWatermark(mark);
        }
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        state.update(watermark == Long.MIN_VALUE ? List.of() : List.of(watermark));
    }
}
