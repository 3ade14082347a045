package org.sage.flink.wire;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Map;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;

/**
 * By how much counters moved: the MessagePack map {@code {counter str: difference int}}. Told from
 * every other wire form by its first byte, as those are arrays.
 */
public final class CounterDelta {

    private static final int FIXMAP = 0x80;
    private static final int FIXMAP_MASK = 0xf0;
    private static final int MAP_16 = 0xde;
    private static final int MAP_32 = 0xdf;

    private CounterDelta() {}

    /** Whether {@code data} is a receipt and no record, question or batch. */
    public static boolean is(byte[] data) {
        if (data.length == 0) {
            return false;
        }
        int first = data[0] & 0xff;
        return (first & FIXMAP_MASK) == FIXMAP || first == MAP_16 || first == MAP_32;
    }

    public static byte[] encode(Map<String, Long> moved) {
        try (MessageBufferPacker packer = MessagePack.newDefaultBufferPacker()) {
            packer.packMapHeader(moved.size());
            for (Map.Entry<String, Long> entry : moved.entrySet()) {
                packer.packString(entry.getKey()).packLong(entry.getValue());
            }
            return packer.toByteArray();
        } catch (IOException e) {
            throw new UncheckedIOException(e); // a packer over memory does no input or output
        }
    }

    /**
     * Add the receipt's differences to {@code counts}.
     *
     * @throws IllegalArgumentException when the bytes are no receipt
     */
    public static void addTo(Map<String, Long> counts, byte[] receipt) {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(receipt)) {
            int size = unpacker.unpackMapHeader();
            for (int i = 0; i < size; i++) {
                counts.merge(unpacker.unpackString(), unpacker.unpackLong(), Long::sum);
            }
        } catch (IOException | MessagePackException e) {
            throw new IllegalArgumentException("not a receipt: " + e.getMessage(), e);
        }
    }
}
