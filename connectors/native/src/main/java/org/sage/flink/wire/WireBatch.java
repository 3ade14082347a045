package org.sage.flink.wire;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;

/** The wire form of a batch: a MessagePack array of wire records. */
public final class WireBatch {

    private static final int HEADER_BYTES_MAX = 5;

    private WireBatch() {}

    /**
     * The batch of these records. Their bytes are copied unchanged, because the elements of a
     * MessagePack array follow its header without a frame of their own.
     *
     * @param bytes total length of the records
     */
    public static byte[] encode(List<byte[]> records, int bytes) {
        ByteBuffer header = ByteBuffer.allocate(HEADER_BYTES_MAX);
        int size = records.size();
        if (size < 16) {
            header.put((byte) (0x90 | size)); // fixarray
        } else if (size < 1 << 16) {
            header.put((byte) 0xdc).putShort((short) size); // array 16
        } else {
            header.put((byte) 0xdd).putInt(size); // array 32
        }
        ByteBuffer batch = ByteBuffer.allocate(header.position() + bytes);
        batch.put(header.flip());
        records.forEach(batch::put);
        return batch.array();
    }

    /**
     * The records of a batch, each as a batch of one.
     *
     * @throws IllegalArgumentException when the bytes are not a batch
     */
    public static List<byte[]> split(byte[] batch) {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(batch)) {
            int size = unpacker.unpackArrayHeader();
            List<byte[]> records = new ArrayList<>(size);
            int from = (int) unpacker.getTotalReadBytes();
            for (int i = 0; i < size; i++) {
                unpacker.skipValue();
                int to = (int) unpacker.getTotalReadBytes();
                records.add(encode(List.of(Arrays.copyOfRange(batch, from, to)), to - from));
                from = to;
            }
            return records;
        } catch (IOException | MessagePackException e) {
            throw new IllegalArgumentException("not a batch: " + e.getMessage(), e);
        }
    }
}
