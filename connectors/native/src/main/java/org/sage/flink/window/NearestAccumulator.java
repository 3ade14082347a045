package org.sage.flink.window;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;
import org.sage.flink.wire.PackedVector;

/**
 * The {@code k} records whose vectors are nearest to a query, by cosine similarity, and of equally
 * near ones the smaller value in MessagePack first. The Python twin is {@code
 * sage_flink/flow/stateful/nearest.py}.
 */
final class NearestAccumulator extends Accumulator {

    /** As in Python: similarities are rounded to this many parts of one, before they are compared. */
    private static final double PARTS = 1_000_000;

    private static final byte[] NIL = {(byte) 0xc0};

    private static final Comparator<Item> NEAREST_FIRST =
            Comparator.comparingLong(Item::parts)
                    .reversed()
                    .thenComparing(Item::value, Arrays::compareUnsigned);

    private record Item(long parts, byte[] value) {}

    private final double[] query;
    private final int k;
    private final List<Item> items = new ArrayList<>();

    /**
     * @param query with length 1
     */
    NearestAccumulator(double[] query, int k) {
        this.query = query;
        this.k = k;
    }

    @Override
    void add(byte[] packed, long timestampMs) {
        throw new IllegalStateException("the nearest records are kept by their value");
    }

    @Override
    void add(byte[] packed, byte[] value, long timestampMs) {
        if (packed != null) {
            double found = PackedVector.similarity(query, PackedVector.unit(packed, query.length));
            long parts = (long) Math.floor(found * PARTS + 0.5);
            add(new Item(parts, value == null ? NIL : value));
        }
    }

    private void add(Item item) {
        int found = Collections.binarySearch(items, item, NEAREST_FIRST);
        int at = found < 0 ? -found - 1 : found;
        if (at < k) {
            items.add(at, item);
            if (items.size() > k) {
                items.remove(k);
            }
        }
    }

    @Override
    void merge(Accumulator other) {
        ((NearestAccumulator) other).items.forEach(this::add);
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        packer.packArrayHeader(items.size());
        for (Item item : items) {
            packer.packMapHeader(2).packString("value").writePayload(item.value);
            packer.packString("similarity").packDouble(item.parts / PARTS);
        }
    }

    @Override
    void write(DataOutputView out) throws IOException {
        out.writeInt(items.size());
        for (Item item : items) {
            out.writeLong(item.parts);
            writeBytes(out, item.value);
        }
    }

    @Override
    void read(DataInputView in) throws IOException {
        items.clear();
        int size = in.readInt();
        for (int i = 0; i < size; i++) {
            long parts = in.readLong();
            items.add(new Item(parts, readBytes(in)));
        }
    }
}
