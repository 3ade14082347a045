package org.sage.flink.window;

import java.io.IOException;
import java.util.Arrays;
import org.apache.datasketches.kll.KllDoublesSketch;
import org.apache.datasketches.memory.Memory;
import org.apache.datasketches.quantilescommon.QuantileSearchCriteria;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;
import org.sage.flink.wire.PackedNumber;

/**
 * A quantile of all values, interpolated between the two nearest ones. It keeps the values; an
 * approximate one keeps a KLL sketch in place of more than {@link #EXACT_MAX}, whose result is a value
 * with a rank near {@code q}. The Python twin is {@code sage_flink/flow/stateful/sketches.py}.
 */
final class QuantileAccumulator extends Accumulator {

    /** The parameter k of the sketch, which is exact up to this many values too, in more memory. */
    static final int EXACT_MAX = 800;

    private static final int FIRST_SIZE = 8;
    private static final int SKETCH = -1;

    private final double q;
    private final boolean isApproximate;
    private double[] values = new double[FIRST_SIZE];
    private int count;
    private KllDoublesSketch sketch;

    QuantileAccumulator(double q, boolean isApproximate) {
        this.q = q;
        this.isApproximate = isApproximate;
    }

    @Override
    void add(byte[] packed, long timestampMs) {
        if (packed != null) {
            add(PackedNumber.toDouble(packed));
        }
    }

    private void add(double value) {
        if (sketch != null) {
            sketch.update(value);
            return;
        }
        ensure(count + 1);
        values[count++] = value;
        if (isApproximate && count > EXACT_MAX) {
            toSketch();
        }
    }

    private void toSketch() {
        sketch = KllDoublesSketch.newHeapInstance(EXACT_MAX);
        sketch.update(values, 0, count);
        values = new double[0];
        count = 0;
    }

    @Override
    void merge(Accumulator other) {
        QuantileAccumulator more = (QuantileAccumulator) other;
        if (more.sketch == null) {
            for (int i = 0; i < more.count; i++) {
                add(more.values[i]);
            }
            return;
        }
        if (sketch == null) {
            toSketch();
        }
        sketch.merge(more.sketch);
    }

    private void ensure(int size) {
        if (size > values.length) {
            values = Arrays.copyOf(values, Math.max(size, 2 * values.length));
        }
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        if (sketch != null) {
            packer.packDouble(sketch.getQuantile(q, QuantileSearchCriteria.INCLUSIVE));
            return;
        }
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
        if (sketch != null) {
            out.writeInt(SKETCH);
            writeBytes(out, sketch.toByteArray());
            return;
        }
        out.writeInt(count);
        for (int i = 0; i < count; i++) {
            out.writeDouble(values[i]);
        }
    }

    @Override
    void read(DataInputView in) throws IOException {
        count = in.readInt();
        if (count == SKETCH) {
            count = 0;
            values = new double[0];
            sketch = KllDoublesSketch.heapify(Memory.wrap(readBytes(in)));
            return;
        }
        values = new double[Math.max(FIRST_SIZE, count)];
        for (int i = 0; i < count; i++) {
            values[i] = in.readDouble();
        }
    }
}
