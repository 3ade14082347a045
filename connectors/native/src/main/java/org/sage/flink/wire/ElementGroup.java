package org.sage.flink.wire;

import java.util.ArrayList;
import java.util.List;

/**
 * Elements that cross between a task and its Python worker together: one crossing costs as much as
 * the work of a small function. Their wire form is a byte that begins no MessagePack value, and an
 * array of bins.
 */
public final class ElementGroup {

    private static final byte MARK = (byte) 0xc1;
    private static final int HEADER_BYTES_MAX = 5;

    private ElementGroup() {}

    public static boolean is(byte[] data) {
        return data.length > 0 && data[0] == MARK;
    }

    /** The group of these elements, in order. */
    public static byte[] encode(List<byte[]> elements) {
        int bytes = HEADER_BYTES_MAX + 1;
        for (byte[] element : elements) {
            bytes += element.length + HEADER_BYTES_MAX;
        }
        PackedWriter group = new PackedWriter(bytes);
        group.raw(new byte[] {MARK}, 0, 1).arrayHeader(elements.size());
        elements.forEach(group::bytes);
        return group.toByteArray();
    }

    /**
     * The elements of a group.
     *
     * @throws IllegalArgumentException when the bytes are not a group
     */
    public static List<byte[]> split(byte[] group) {
        try {
            PackedReader reader = new PackedReader(group);
            reader.advance(1);
            int size = reader.arrayHeader();
            List<byte[]> elements = new ArrayList<>(size);
            for (int i = 0; i < size; i++) {
                elements.add(reader.bytes());
            }
            return elements;
        } catch (PackedReader.Malformed e) {
            throw new IllegalArgumentException("not a group: " + e.getMessage(), e);
        }
    }
}
