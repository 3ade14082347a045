package org.sage.flink.wire;

import java.util.Map;

/**
 * A change of counters since the previous delta, as the MessagePack map {@code {counter str:
 * difference int}}. Its first byte distinguishes it from the other wire forms, which are arrays.
 */
public final class CounterDelta {

    private static final int FIXMAP = 0x80;
    private static final int FIXMAP_MASK = 0xf0;
    private static final int MAP_16 = 0xde;
    private static final int MAP_32 = 0xdf;

    private CounterDelta() {}

    /** Whether {@code data} is a delta and not another wire form. */
    public static boolean is(byte[] data) {
        if (data.length == 0) {
            return false;
        }
        int first = data[0] & 0xff;
        return (first & FIXMAP_MASK) == FIXMAP || first == MAP_16 || first == MAP_32;
    }

    public static byte[] encode(Map<String, Long> delta) {
        PackedWriter writer = new PackedWriter(64 * delta.size());
        writer.mapHeader(delta.size());
        delta.forEach(
                (counter, difference) -> {
                    writer.string(counter);
                    writer.number(difference);
                });
        return writer.toByteArray();
    }

    /**
     * Adds the differences in {@code delta} to {@code counts}.
     *
     * @throws IllegalArgumentException when the bytes are not a delta
     */
    public static void addTo(Map<String, Long> counts, byte[] delta) {
        try {
            PackedReader reader = new PackedReader(delta);
            int size = reader.mapHeader();
            for (int i = 0; i < size; i++) {
                counts.merge(reader.string(), reader.wholeNumber(), Long::sum);
            }
        } catch (PackedReader.Malformed e) {
            throw new IllegalArgumentException("not a counter delta: " + e.getMessage(), e);
        }
    }
}
