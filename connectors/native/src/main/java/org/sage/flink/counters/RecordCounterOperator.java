package org.sage.flink.counters;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ScheduledFuture;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.SideOutputDataStream;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.util.OutputTag;
import org.sage.flink.wire.CounterDelta;

/**
 * Operator that forwards records unchanged and counts them: each record adds one to every counter
 * in {@code counters}.
 *
 * <p>A {@link CounterDelta} among the records is added to the counts and not forwarded. A Python
 * stage uses such deltas for counts that no record represents (records dropped, multiplied, failed
 * or written), in order with its output.
 *
 * <p>The counts are sent as deltas to {@link JobCountersOperator} through a side output, once a
 * second and before every checkpoint barrier. The latter makes them exact without any state here: no
 * count is pending when a snapshot is taken, and a restored job counts again exactly the records
 * that it reads again. So this operator may be added, removed, moved or rescaled with the pipeline.
 *
 * <p>Chained to its neighbour: a record costs an addition.
 */
public final class RecordCounterOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]>, BoundedOneInput {

    private static final long serialVersionUID = 1L;

    static final OutputTag<byte[]> DELTAS =
            new OutputTag<>("counter-deltas", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    private static final long FLUSH_MS = 1_000;

    private final String[] counters;

    private transient long records;
    private transient Map<String, Long> pending;
    private transient ScheduledFuture<?> flush;

    public RecordCounterOperator(List<String> counters) {
        this.counters = counters.toArray(String[]::new);
    }

    /** Appends a counter to the stream, with {@code name} as its name and uid. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String name, List<String> counters) {
        return in.transform(
                        name,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new RecordCounterOperator(counters))
                .uid(name);
    }

    /** The deltas of a counter that {@link #wire} made, for {@link JobCountersOperator#wire}. */
    public static SideOutputDataStream<byte[]> deltas(
            SingleOutputStreamOperator<byte[]> counter) {
        return counter.getSideOutput(DELTAS);
    }

    @Override
    public void open() throws Exception {
        super.open();
        pending = new LinkedHashMap<>();
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        if (flush == null) {
            startFlush();
        }
        if (CounterDelta.is(element.getValue())) {
            CounterDelta.addTo(pending, element.getValue());
        } else {
            records++;
            output.collect(element);
        }
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpointId) {
        emit();
    }

    @Override
    public void endInput() {
        emit();
    }

    private void startFlush() {
        long now = getProcessingTimeService().getCurrentProcessingTime();
        flush = getProcessingTimeService().registerTimer(now + FLUSH_MS, time -> emit());
    }

    private void emit() {
        if (flush != null) {
            flush.cancel(false);
            flush = null;
        }
        if (records > 0) {
            for (String counter : counters) {
                pending.merge(counter, records, Long::sum);
            }
            records = 0;
        }
        if (!pending.isEmpty()) {
            output.collect(DELTAS, new StreamRecord<>(CounterDelta.encode(pending)));
            pending.clear();
        }
    }
}
