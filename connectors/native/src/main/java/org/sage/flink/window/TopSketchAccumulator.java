package org.sage.flink.window;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import org.apache.datasketches.common.ArrayOfStringsSerDe;
import org.apache.datasketches.frequencies.ErrorType;
import org.apache.datasketches.frequencies.ItemsSketch;
import org.apache.datasketches.memory.Memory;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;

/**
 * The most frequent values with about their counts, by a sketch of frequent items: exact up to {@link
 * #VALUES_MAX} different values, and never more of them in memory. Values are equal when their
 * MessagePack is. The Python twin is {@code sage_flink/flow/stateful/sketches.py}.
 */
final class TopSketchAccumulator extends Accumulator {

    private static final int MAP_SIZE = 1024;
    /** The load at which the sketch drops rare values. */
    static final int VALUES_MAX = MAP_SIZE * 3 / 4;

    private static final ArrayOfStringsSerDe TEXT = new ArrayOfStringsSerDe();

    private final int top;
    private ItemsSketch<String> sketch = new ItemsSketch<>(MAP_SIZE);

    TopSketchAccumulator(int top) {
        this.top = top;
    }

    @Override
    void add(byte[] packed, long timestampMs) {
        if (packed != null) {
            sketch.update(new String(packed, StandardCharsets.ISO_8859_1));
        }
    }

    @Override
    void merge(Accumulator other) {
        sketch.merge(((TopSketchAccumulator) other).sketch);
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        Comparator<ItemsSketch.Row<String>> byCount =
                Comparator.comparingLong(ItemsSketch.Row<String>::getEstimate).reversed();
        List<ItemsSketch.Row<String>> most =
                Arrays.stream(sketch.getFrequentItems(ErrorType.NO_FALSE_NEGATIVES))
                        .sorted(byCount.thenComparing(ItemsSketch.Row::getItem))
                        .limit(top)
                        .toList();
        packer.packArrayHeader(most.size());
        for (ItemsSketch.Row<String> row : most) {
            packer.packMapHeader(2).packString("value");
            packer.writePayload(row.getItem().getBytes(StandardCharsets.ISO_8859_1));
            packer.packString("count").packLong(row.getEstimate());
        }
    }

    @Override
    void write(DataOutputView out) throws IOException {
        writeBytes(out, sketch.toByteArray(TEXT));
    }

    @Override
    void read(DataInputView in) throws IOException {
        sketch = ItemsSketch.getInstance(Memory.wrap(readBytes(in)), TEXT);
    }
}
