package org.sage.flink.wire;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

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
        PackedWriter batch = new PackedWriter(HEADER_BYTES_MAX + bytes);
        batch.arrayHeader(records.size());
        records.forEach(record -> batch.raw(record, 0, record.length));
        return batch.toByteArray();
    }

    /**
     * The records of a batch, each as a batch of one.
     *
     * @throws IllegalArgumentException when the bytes are not a batch
     */
    public static List<byte[]> split(byte[] batch) {
        try {
            PackedReader reader = new PackedReader(batch);
            int size = reader.arrayHeader();
            List<byte[]> records = new ArrayList<>();
            int from = reader.position();
            for (int i = 0; i < size; i++) {
                reader.skip();
                int to = reader.position();
                records.add(encode(List.of(Arrays.copyOfRange(batch, from, to)), to - from));
                from = to;
            }
            return records;
        } catch (PackedReader.Malformed e) {
            throw new IllegalArgumentException("not a batch: " + e.getMessage(), e);
        }
    }
}
