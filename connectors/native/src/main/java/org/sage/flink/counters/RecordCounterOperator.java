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
 * Records passed on untouched and counted: each adds one to every counter in {@code counters}.
 *
 * <p>A {@link CounterDelta} among the records adds what it says and goes no further: so a Python stage
 * counts what has no record of its own (what it dropped, multiplied, failed or wrote) in line with
 * its output.
 *
 * <p>The counts leave by the side output for the {@link JobCountersOperator}, once a second and, this is why
 * they are exact without any state here, before every checkpoint barrier: nothing is pending when a
 * snapshot is taken, and a restored job counts anew exactly what it reads anew. So a tally may come,
 * go, move and change its parallelism with the pipeline.
 *
 * <p>Chained to its neighbour: a record costs an addition and the chain's copy of its bytes.
 */
public final class RecordCounterOperator extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]>, BoundedOneInput {

    private static final long serialVersionUID = 1L;

    static final OutputTag<byte[]> DELTAS =
            new OutputTag<>("counter-deltas", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    private static final long FLUSH_MS = 1_000;

    private final String[] counters;

    private transient long records;
    private transient Map<String, Long> receipts;
    private transient ScheduledFuture<?> flush;

    public RecordCounterOperator(List<String> counters) {
        this.counters = counters.toArray(String[]::new);
    }

    /** The stream with a tally at its end, named {@code name}, uid the same. */
    public static SingleOutputStreamOperator<byte[]> wire(
            DataStream<byte[]> in, String name, List<String> counters) {
        return in.transform(
                        name,
                        PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO,
                        new RecordCounterOperator(counters))
                .uid(name);
    }

    /** What the tally {@code counted} has to say, for {@link JobCountersOperator#wire}. */
    public static SideOutputDataStream<byte[]> deltas(
            SingleOutputStreamOperator<byte[]> counted) {
        return counted.getSideOutput(DELTAS);
    }

    @Override
    public void open() throws Exception {
        super.open();
        receipts = new LinkedHashMap<>();
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        if (flush == null) {
            startFlush();
        }
        if (CounterDelta.is(element.getValue())) {
            CounterDelta.addTo(receipts, element.getValue());
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
                receipts.merge(counter, records, Long::sum);
            }
            records = 0;
        }
        if (!receipts.isEmpty()) {
            output.collect(DELTAS, new StreamRecord<>(CounterDelta.encode(receipts)));
            receipts.clear();
        }
    }
}
