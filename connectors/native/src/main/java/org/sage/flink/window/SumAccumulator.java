package org.sage.flink.window;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;
import org.sage.flink.wire.PackedNumber;

/**
 * Sum or mean. A sum of whole numbers is whole while it has 64 bits; any other one is a double, with
 * the error of its additions added up too (Neumaier).
 */
final class SumAccumulator extends Accumulator {

    private final boolean isMean;
    private long count;
    private boolean isWhole = true;
    private long whole;
    private double sum;
    private double error;

    SumAccumulator(boolean isMean) {
        this.isMean = isMean;
    }

    @Override
    void add(byte[] packed, long timestampMs) {
        if (packed == null) {
            return;
        }
        count++;
        if (PackedNumber.isWhole(packed)) {
            addWhole(PackedNumber.toLong(packed));
        } else {
            isWhole = false;
            addDouble(PackedNumber.toDouble(packed));
        }
    }

    private void addWhole(long number) {
        long added = whole + number;
        boolean overflows = ((whole ^ added) & (number ^ added)) < 0;
        if (overflows) {
            isWhole = false;
            addDouble(whole);
            whole = number;
        } else {
            whole = added;
        }
    }

    private void addDouble(double number) {
        double added = sum + number;
        boolean larger = Math.abs(sum) >= Math.abs(number);
        error += larger ? sum - added + number : number - added + sum;
        sum = added;
    }

    @Override
    void merge(Accumulator other) {
        SumAccumulator more = (SumAccumulator) other;
        count += more.count;
        isWhole &= more.isWhole;
        addWhole(more.whole);
        addDouble(more.sum);
        error += more.error;
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        if (count == 0) {
            packer.packNil();
        } else if (isMean) {
            packer.packDouble(total() / count);
        } else if (isWhole) {
            packer.packLong(whole);
        } else {
            packer.packDouble(total());
        }
    }

    private double total() {
        double rounded = sum + whole;
        return Double.isFinite(rounded) ? rounded + error : rounded;
    }

    @Override
    void write(DataOutputView out) throws IOException {
        out.writeLong(count);
        out.writeBoolean(isWhole);
        out.writeLong(whole);
        out.writeDouble(sum);
        out.writeDouble(error);
    }

    @Override
    void read(DataInputView in) throws IOException {
        count = in.readLong();
        isWhole = in.readBoolean();
        whole = in.readLong();
        sum = in.readDouble();
        error = in.readDouble();
    }
}
