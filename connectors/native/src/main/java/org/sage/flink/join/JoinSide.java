package org.sage.flink.join;

import java.io.IOException;
import java.util.Arrays;
import java.util.Map;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;
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
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(data)) {
            unpacker.unpackArrayHeader();
            String id = unpacker.unpackString();
            int from = (int) unpacker.getTotalReadBytes();
            unpacker.skipValue();
            byte[] value = Arrays.copyOfRange(data, from, (int) unpacker.getTotalReadBytes());
            return new JoinSide(
                    id,
                    value,
                    unpacker.unpackLong(),
                    WireRecord.unpackBytes(unpacker),
                    WireRecord.unpackHeaders(unpacker),
                    unpacker.unpackString());
        } catch (IOException | MessagePackException e) {
            throw new IllegalArgumentException("not a wire record: " + e.getMessage(), e);
        }
    }
}
