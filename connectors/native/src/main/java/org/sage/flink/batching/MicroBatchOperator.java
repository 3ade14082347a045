package org.sage.flink.batching;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ScheduledFuture;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.metrics.Histogram;
import org.apache.flink.runtime.metrics.DescriptiveStatisticsHistogram;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.api.watermark.Watermark;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.wire.WireBatch;
import org.sage.flink.wire.WireRecord;

/**
 * Operator that collects wire records into batches: a MessagePack array of records each, in the
 * order of arrival within a subtask.
 *
 * <p>A batch is emitted when it holds {@code itemsMax} records, when another record would take it
 * beyond {@code bytesMax} (a larger single record forms a batch of its own), when its oldest record
 * has waited {@code lingerMs}, and at the end of the input. Where the wait was over while the writer
 * behind was busy, it starts once more, so that a batch holds the records that arrived in that
 * time. Pending records are operator state: they survive a restart exactly once and are
 * redistributed when the parallelism changes.
 *
 * <p>A watermark waits for the batch that was pending before it, so that a sink with snapshots knows
 * what event time its rows have reached. A batch has no timestamp: use this operator after the
 * event-time steps, before a sink.
 */
public final class MicroBatchOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]>, BoundedOneInput {

    private static final long serialVersionUID = 1L;

    private static final int HISTOGRAM_WINDOW = 1000;

    private final int itemsMax;
    private final long bytesMax;
    private final long lingerMs;

    private transient ListState<byte[]> state;
    private transient List<byte[]> pending;
    private transient long pendingBytes;
    private transient ScheduledFuture<?> linger;
    private transient Histogram batchItems;
    private transient Watermark waiting;

    public MicroBatchOperator(int itemsMax, long bytesMax, long lingerMs) {
        this.itemsMax = itemsMax;
        this.bytesMax = bytesMax;
        this.lingerMs = lingerMs;
    }

    /**
     * Appends this operator to the stream, with {@code name} as its name and uid, in a task of its
     * own with the writer behind it: while that waits for its store, the steps before go on.
     *
     * @throws IllegalArgumentException on a limit below 1
     */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String name, int itemsMax, long bytesMax, long lingerMs) {
        requireAtLeastOne(name, "items_max", itemsMax);
        requireAtLeastOne(name, "bytes_max", bytesMax);
        requireAtLeastOne(name, "linger_ms", lingerMs);
        return in.transform(
                        name,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new MicroBatchOperator(itemsMax, bytesMax, lingerMs))
                .uid(name)
                .startNewChain();
    }

    private static void requireAtLeastOne(String step, String limit, long value) {
        if (value < 1) {
            throw new IllegalArgumentException(
                    "step '" + step + "': " + limit + " must be at least 1, got " + value);
        }
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        // The serializer is explicit: a descriptor by class would use Kryo for byte[].
        state =
                context.getOperatorStateStore()
                        .getListState(
                                new ListStateDescriptor<>(
                                        "pending",
                                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO));
    }

    @Override
    public void open() throws Exception {
        super.open();
        pending = new ArrayList<>();
        batchItems =
                getMetricGroup()
                        .histogram("batch_items", new DescriptiveStatisticsHistogram(HISTOGRAM_WINDOW));
        // After a restore at a smaller parallelism the state can hold several batches.
        for (byte[] record : state.get()) {
            add(WireRecord.upgrade(record));
        }
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) throws Exception {
        add(element.getValue());
    }

    @Override
    public void processWatermark(Watermark mark) throws Exception {
        if (pending.isEmpty()) {
            super.processWatermark(mark);
        } else {
            waiting = mark;
        }
    }

    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        state.update(pending);
    }

    @Override
    public void endInput() throws Exception {
        emit();
    }

    private void add(byte[] record) throws Exception {
        if (pendingBytes + record.length > bytesMax) {
            emit();
        }
        pending.add(record);
        pendingBytes += record.length;
        if (pending.size() >= itemsMax || pendingBytes >= bytesMax) {
            emit();
        } else if (pending.size() == 1) {
            startLinger();
        }
    }

    private void startLinger() {
        startLinger(pending, true);
    }

    private void startLinger(List<byte[]> batch, boolean isFirst) {
        long until = getProcessingTimeService().getCurrentProcessingTime() + lingerMs;
        linger =
                getProcessingTimeService()
                        .registerTimer(until, time -> endLinger(batch, until, isFirst));
    }

    /** A cancelled timer may already be in the mailbox: it must not emit the batch behind its own. */
    private void endLinger(List<byte[]> batch, long until, boolean isFirst) throws Exception {
        long overdueMs = getProcessingTimeService().getCurrentProcessingTime() - until;
        if (batch != pending) {
            return;
        }
        if (isFirst && overdueMs > lingerMs / 2) {
            startLinger(batch, false);
        } else {
            emit();
        }
    }

    private void emit() throws Exception {
        if (pending.isEmpty()) {
            return;
        }
        if (linger != null) {
            linger.cancel(false);
            linger = null;
        }
        List<byte[]> batch = pending;
        int bytes = Math.toIntExact(pendingBytes);
        pending = new ArrayList<>(batch.size());
        pendingBytes = 0;
        batchItems.update(batch.size());
        output.collect(new StreamRecord<>(WireBatch.encode(batch, bytes)));
        if (waiting != null) {
            Watermark mark = waiting;
            waiting = null;
            super.processWatermark(mark);
        }
    }
}
