package org.sage.flink.python;

import java.util.ArrayList;
import java.util.List;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.sage.flink.wire.ElementGroup;

/**
 * The elements of a bundle, which are kept until its results are emitted, and the group of those
 * that have not crossed to the worker.
 */
final class StageBundle<IN> {

    /** The elements of a bundle that cross to the worker together; a large one does not wait. */
    private static final int GROUP_ELEMENTS = 16;

    private static final int GROUP_ELEMENT_BYTES = 16 << 10;
    /** A bundle ends when its elements have this many bytes. */
    private static final long BYTES_MAX = 4 << 20;

    private final boolean takesBatches;
    private final List<StreamRecord<IN>> elements = new ArrayList<>();
    private final List<byte[]> group = new ArrayList<>();
    private long bytes;

    StageBundle(boolean takesBatches) {
        this.takesBatches = takesBatches;
    }

    /** Keeps a copy of the element; {@code sent} is what crosses to the worker. */
    void add(StreamRecord<IN> element, byte[] sent) {
        elements.add(element.copy(element.getValue()));
        group.add(sent);
        bytes += sent.length;
    }

    List<StreamRecord<IN>> elements() {
        return elements;
    }

    boolean isEmpty() {
        return elements.isEmpty();
    }

    /** Whether the worker has had nothing to do before the last element. */
    boolean hasOneElement() {
        return elements.size() == 1;
    }

    boolean isFull(int elementsMax) {
        return elements.size() >= elementsMax || bytes >= BYTES_MAX;
    }

    /** Whether the group crosses after the element that was just added. */
    boolean groupIsDue() {
        boolean isLarge = takesBatches || group.get(group.size() - 1).length >= GROUP_ELEMENT_BYTES;
        return hasOneElement() || isLarge || group.size() >= GROUP_ELEMENTS;
    }

    boolean hasGroup() {
        return !group.isEmpty();
    }

    /** Empties the group; one element that has the bytes of all. */
    StreamRecord<IN> takeGroup() {
        byte[] sent = group.size() == 1 ? group.get(0) : ElementGroup.encode(group);
        group.clear();
        return ElementBytes.with(elements.get(elements.size() - 1), sent);
    }

    void dropGroup() {
        group.clear();
    }

    void clear() {
        elements.clear();
        bytes = 0;
    }
}
