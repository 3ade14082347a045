package org.sage.flink.window;

import java.io.IOException;
import java.util.Arrays;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;
import org.sage.flink.wire.PackedNumber;

/** A quantile of all values, interpolated between the two nearest ones. Exact: it keeps the values. */
final class QuantileAccumulator extends Accumulator {

    private static final int FIRST_SIZE = 8;

    private final double q;
    private double[] values = new double[FIRST_SIZE];
    private int count;

    QuantileAccumulator(double q) {
        this.q = q;
    }

    @Override
    void add(byte[] packed, long timestampMs) {
        if (packed != null) {
            ensure(count + 1);
            values[count++] = PackedNumber.toDouble(packed);
        }
    }

    @Override
    void merge(Accumulator other) {
        QuantileAccumulator more = (QuantileAccumulator) other;
        ensure(count + more.count);
        System.arraycopy(more.values, 0, values, count, more.count);
        count += more.count;
    }

    private void ensure(int size) {
        if (size > values.length) {
            values = Arrays.copyOf(values, Math.max(size, 2 * values.length));
        }
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        if (count == 0) {
            packer.packNil();
            return;
        }
        Arrays.sort(values, 0, count);
        double at = q * (count - 1);
        int below = (int) at;
        double part = at - below;
        double low = values[below];
        packer.packDouble(part == 0 ? low : low + part * (values[below + 1] - low));
    }

    @Override
    void write(DataOutputView out) throws IOException {
        out.writeInt(count);
        for (int i = 0; i < count; i++) {
            out.writeDouble(values[i]);
        }
    }

    @Override
    void read(DataInputView in) throws IOException {
        count = in.readInt();
        values = new double[Math.max(FIRST_SIZE, count)];
        for (int i = 0; i < count; i++) {
            values[i] = in.readDouble();
        }
    }
}
