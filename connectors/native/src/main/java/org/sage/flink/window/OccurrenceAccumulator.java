package org.sage.flink.window;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;

/**
 * How often each value occurs: the number of different ones, or the {@code top} most frequent, of
 * equally frequent ones the smaller in MessagePack first. Values are equal when their MessagePack is.
 */
final class OccurrenceAccumulator extends Accumulator {

    private final int top;
    private final Map<ByteBuffer, Long> counts = new HashMap<>();

    /** With {@code top} 0 the result is the number of different values. */
    OccurrenceAccumulator(int top) {
        this.top = top;
    }

    @Override
    void add(byte[] packed, long timestampMs) {
        if (packed != null) {
            counts.merge(ByteBuffer.wrap(packed), 1L, Long::sum);
        }
    }

    @Override
    void merge(Accumulator other) {
        ((OccurrenceAccumulator) other)
                .counts.forEach((value, count) -> counts.merge(value, count, Long::sum));
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        if (top == 0) {
            packer.packInt(counts.size());
            return;
        }
        Comparator<Map.Entry<ByteBuffer, Long>> byCount = Map.Entry.comparingByValue();
        List<Map.Entry<ByteBuffer, Long>> most =
                counts.entrySet().stream()
                        .sorted(byCount.reversed().thenComparing(Map.Entry::getKey, UNSIGNED))
                        .limit(top)
                        .toList();
        packer.packArrayHeader(most.size());
        for (Map.Entry<ByteBuffer, Long> entry : most) {
            packer.packMapHeader(2).packString("value").writePayload(entry.getKey().array());
            packer.packString("count").packLong(entry.getValue());
        }
    }

    private static final Comparator<ByteBuffer> UNSIGNED =
            (one, other) -> Arrays.compareUnsigned(one.array(), other.array());

    @Override
    void write(DataOutputView out) throws IOException {
        out.writeInt(counts.size());
        for (Map.Entry<ByteBuffer, Long> entry : counts.entrySet()) {
            writeBytes(out, entry.getKey().array());
            out.writeLong(entry.getValue());
        }
    }

    @Override
    void read(DataInputView in) throws IOException {
        counts.clear();
        int size = in.readInt();
        for (int i = 0; i < size; i++) {
            ByteBuffer value = ByteBuffer.wrap(readBytes(in));
            counts.put(value, in.readLong());
        }
    }
}
