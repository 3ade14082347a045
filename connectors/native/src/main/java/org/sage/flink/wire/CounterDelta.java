package org.sage.flink.wire;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Map;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;

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
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packMapHeader(delta.size());
            for (Map.Entry<String, Long> entry : delta.entrySet()) {
                packer.packString(entry.getKey()).packLong(entry.getValue());
            }
            return packer.toByteArray();
        } catch (IOException e) {
            throw new UncheckedIOException(e); // a packer over memory does no input or output
        }
    }

    /**
     * Adds the differences in {@code delta} to {@code counts}.
     *
     * @throws IllegalArgumentException when the bytes are not a delta
     */
    public static void addTo(Map<String, Long> counts, byte[] delta) {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(delta)) {
            int size = unpacker.unpackMapHeader();
            for (int i = 0; i < size; i++) {
                counts.merge(unpacker.unpackString(), unpacker.unpackLong(), Long::sum);
            }
        } catch (IOException | MessagePackException e) {
            throw new IllegalArgumentException("not a counter delta: " + e.getMessage(), e);
        }
    }
}
