package org.sage.flink.window;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;

/**
 * How many records a window holds that does not end with time, and their event times. It is the first
 * accumulator of such a window, and no result of its own.
 */
final class SpanAccumulator extends Accumulator {

    private long records;
    private long firstMs = Long.MAX_VALUE;
    private long lastMs = Long.MIN_VALUE;

    long records() {
        return records;
    }

    /** The time of the earliest record. */
    long startMs() {
        return firstMs;
    }

    /** The millisecond behind the latest record. */
    long endMs() {
        return lastMs + 1;
    }

    @Override
    void add(byte[] packed, long timestampMs) {
        records++;
        firstMs = Math.min(firstMs, timestampMs);
        lastMs = Math.max(lastMs, timestampMs);
    }

    @Override
    void merge(Accumulator other) {
        SpanAccumulator more = (SpanAccumulator) other;
        records += more.records;
        firstMs = Math.min(firstMs, more.firstMs);
        lastMs = Math.max(lastMs, more.lastMs);
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        throw new IllegalStateException("the span of a window is no result");
    }

    @Override
    void write(DataOutputView out) throws IOException {
        out.writeLong(records);
        out.writeLong(firstMs);
        out.writeLong(lastMs);
    }

    @Override
    void read(DataInputView in) throws IOException {
        records = in.readLong();
        firstMs = in.readLong();
        lastMs = in.readLong();
    }
}
