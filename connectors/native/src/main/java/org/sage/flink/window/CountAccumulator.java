package org.sage.flink.window;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;

/** The number of records, or of those that have the field. */
final class CountAccumulator extends Accumulator {

    private final boolean all;
    private long count;

    CountAccumulator(boolean all) {
        this.all = all;
    }

    @Override
    void add(byte[] packed, long timestampMs) {
        count += all || packed != null ? 1 : 0;
    }

    @Override
    void merge(Accumulator other) {
        count += ((CountAccumulator) other).count;
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        packer.packLong(count);
    }

    @Override
    void write(DataOutputView out) throws IOException {
        out.writeLong(count);
    }

    @Override
    void read(DataInputView in) throws IOException {
        count = in.readLong();
    }
}
