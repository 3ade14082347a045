package org.sage.flink.window;

import java.io.IOException;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;
import org.sage.flink.wire.PackedNumber;

/** The standard deviation of a sample (Welford; merged after Chan). None below two values. */
final class StddevAccumulator extends Accumulator {

    private long count;
    private double mean;
    private double squares;

    @Override
    void add(byte[] packed, long timestampMs) {
        if (packed == null) {
            return;
        }
        double number = PackedNumber.toDouble(packed);
        count++;
        double before = number - mean;
        mean += before / count;
        squares += before * (number - mean);
    }

    @Override
    void merge(Accumulator other) {
        StddevAccumulator more = (StddevAccumulator) other;
        if (more.count == 0) {
            return;
        }
        long total = count + more.count;
        double apart = more.mean - mean;
        squares += more.squares + apart * apart * count * more.count / total;
        mean += apart * more.count / total;
        count = total;
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        if (count < 2) {
            packer.packNil();
        } else {
            packer.packDouble(Math.sqrt(squares / (count - 1)));
        }
    }

    @Override
    void write(DataOutputView out) throws IOException {
        out.writeLong(count);
        out.writeDouble(mean);
        out.writeDouble(squares);
    }

    @Override
    void read(DataInputView in) throws IOException {
        count = in.readLong();
        mean = in.readDouble();
        squares = in.readDouble();
    }
}
