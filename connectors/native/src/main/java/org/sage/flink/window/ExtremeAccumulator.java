package org.sage.flink.window;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;
import org.sage.flink.wire.PackedNumber;

/** The smallest or the largest number; of equal ones the first. */
final class ExtremeAccumulator extends Accumulator {

    private final boolean isMin;
    private byte[] extreme;

    ExtremeAccumulator(boolean isMin) {
        this.isMin = isMin;
    }

    @Override
    void add(byte[] packed, long timestampMs) {
        if (packed == null) {
            return;
        }
        int order = extreme == null ? 1 : isMin ? compare(extreme, packed) : compare(packed, extreme);
        if (order > 0) {
            extreme = packed;
        }
    }

    private static int compare(byte[] one, byte[] other) {
        if (PackedNumber.isWhole(one) && PackedNumber.isWhole(other)) {
            return Long.compare(PackedNumber.toLong(one), PackedNumber.toLong(other));
        }
        double left = PackedNumber.toDouble(one);
        double right = PackedNumber.toDouble(other);
        return left == right ? 0 : Double.compare(left, right); // 0.0 and -0.0 are equal
    }

    @Override
    void merge(Accumulator other) {
        add(((ExtremeAccumulator) other).extreme, 0);
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        if (extreme == null) {
            packer.packNil();
        } else {
            packer.writePayload(extreme);
        }
    }

    @Override
    void write(DataOutputView out) throws IOException {
        writeBytes(out, extreme);
    }

    @Override
    void read(DataInputView in) throws IOException {
        extreme = readBytes(in);
    }
}
