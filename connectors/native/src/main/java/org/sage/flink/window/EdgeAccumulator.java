package org.sage.flink.window;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;

/** The value of the first or the last record by event time; of equal times by arrival. */
final class EdgeAccumulator extends Accumulator {

    private final boolean isFirst;
    private long timestampMs;
    private byte[] edge;

    EdgeAccumulator(boolean isFirst) {
        this.isFirst = isFirst;
    }

    @Override
    void add(byte[] packed, long timeMs) {
        if (packed == null) {
            return;
        }
        boolean replaces = isFirst ? timeMs < timestampMs : timeMs >= timestampMs;
        if (edge == null || replaces) {
            edge = packed;
            timestampMs = timeMs;
        }
    }

    @Override
    void merge(Accumulator other) {
        EdgeAccumulator more = (EdgeAccumulator) other;
        add(more.edge, more.timestampMs);
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        if (edge == null) {
            packer.packNil();
        } else {
            packer.writePayload(edge);
        }
    }

    @Override
    void write(DataOutputView out) throws IOException {
        out.writeLong(timestampMs);
        writeBytes(out, edge);
    }

    @Override
    void read(DataInputView in) throws IOException {
        timestampMs = in.readLong();
        edge = readBytes(in);
    }
}
