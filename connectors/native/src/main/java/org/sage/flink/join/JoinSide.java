package org.sage.flink.join;

import java.util.Arrays;
import java.util.Map;
import org.sage.flink.wire.PackedReader;
import org.sage.flink.wire.WireRecord;

/**
 * What a result needs of one of its records.
 *
 * @param value the MessagePack of the value
 */
record JoinSide(
        String id,
        byte[] value,
        long timestampMs,
        byte[] key,
        Map<String, byte[]> headers,
        String origin) {

    /**
     * What the wire record {@code data} holds.
     *
     * @throws IllegalArgumentException when the bytes are not a wire record
     */
    static JoinSide of(byte[] data) {
        try {
            PackedReader reader = new PackedReader(data);
            reader.arrayHeader();
            String id = reader.string();
            int from = reader.position();
            reader.skip();
            byte[] value = Arrays.copyOfRange(data, from, reader.position());
            return new JoinSide(
                    id,
                    value,
                    reader.wholeNumber(),
                    reader.bytes(),
                    WireRecord.headers(reader),
                    reader.string());
        } catch (PackedReader.Malformed e) {
            throw new IllegalArgumentException("not a wire record: " + e.getMessage(), e);
        }
    }
}
