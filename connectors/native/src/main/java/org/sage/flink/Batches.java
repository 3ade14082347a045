package org.sage.flink;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;

/** The wire form of a batch: a MessagePack array whose elements are wire records. */
final class Batches {

    private static final int HEADER_BYTES_MAX = 5;

    private Batches() {}

    /**
     * The batch of these records; they are copied as they stand, for an array's elements follow its
     * header without a frame of their own.
     *
     * @param bytes the records' length in all
     */
    static byte[] encode(List<byte[]> records, int bytes) {
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
     * The records of a batch, in order.
     *
     * @throws IllegalArgumentException when it is none
     */
    static List<byte[]> decode(byte[] batch) {
        List<byte[]> records = new ArrayList<>();
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(batch)) {
            int size = unpacker.unpackArrayHeader();
            for (int i = 0; i < size; i++) {
                int start = (int) unpacker.getTotalReadBytes();
                unpacker.skipValue();
                records.add(
                        Arrays.copyOfRange(batch, start, (int) unpacker.getTotalReadBytes()));
            }
            return records;
        } catch (IOException | MessagePackException e) {
            throw new IllegalArgumentException("not a batch of records: " + e.getMessage(), e);
        }
    }
}
