package org.sage.flink.window;

import java.io.IOException;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import org.apache.flink.core.memory.DataInputView;
import org.apache.flink.core.memory.DataOutputView;
import org.msgpack.core.MessagePacker;

/**
 * The values themselves, by event time and arrival. It keeps the first {@code itemsMax} that arrive
 * and counts the others.
 */
final class CollectAccumulator extends Accumulator {

    private record Item(long timestampMs, byte[] packed) {}

    private final int itemsMax;
    private final List<Item> items = new ArrayList<>();
    private long omitted;

    CollectAccumulator(int itemsMax) {
        this.itemsMax = itemsMax;
    }

    @Override
    void add(byte[] packed, long timestampMs) {
        if (packed != null) {
            add(new Item(timestampMs, packed));
        }
    }

    private void add(Item item) {
        if (items.size() < itemsMax) {
            items.add(item);
        } else {
            omitted++;
        }
    }

    @Override
    void merge(Accumulator other) {
        CollectAccumulator more = (CollectAccumulator) other;
        more.items.forEach(this::add);
        omitted += more.omitted;
    }

    @Override
    long omitted() {
        return omitted;
    }

    @Override
    void packResult(MessagePacker packer) throws IOException {
        items.sort(Comparator.comparingLong(Item::timestampMs)); // stable
        packer.packArrayHeader(items.size());
        for (Item item : items) {
            packer.writePayload(item.packed);
        }
    }

    @Override
    void write(DataOutputView out) throws IOException {
        out.writeLong(omitted);
        out.writeInt(items.size());
        for (Item item : items) {
            out.writeLong(item.timestampMs);
            writeBytes(out, item.packed);
        }
    }

    @Override
    void read(DataInputView in) throws IOException {
        items.clear();
        omitted = in.readLong();
        int size = in.readInt();
        for (int i = 0; i < size; i++) {
            long timestampMs = in.readLong();
            items.add(new Item(timestampMs, readBytes(in)));
        }
    }
}
