package org.sage.flink.wire;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.LinkedHashMap;
import java.util.Map;
import org.msgpack.core.MessageBufferPacker;
import org.msgpack.core.MessagePack;
import org.msgpack.core.MessagePackException;
import org.msgpack.core.MessageUnpacker;
import org.msgpack.value.ValueType;

/**
 * A record whose value is bytes or nothing, and its wire form: the MessagePack array of six {@code
 * [id str, value, timestamp_ms int, key bin|nil, headers map str->bin, origin str]} that the Python
 * side reads as {@code Record}.
 *
 * @param value the raw value, null for none (a Kafka tombstone)
 * @param timestampMs event time, milliseconds since the epoch, 0 for none
 * @param key null for none
 */
public record WireRecord(
        String id,
        byte[] value,
        long timestampMs,
        byte[] key,
        Map<String, byte[]> headers,
        String origin) {

    private static final int FIELDS = 6;

    private static final String REMOVAL_KEY = "$delete";

    /** The wire form of this record. */
    public byte[] encode() {
        int valueLength = value == null ? 0 : value.length;
        try (MessageBufferPacker packer =
                new MessagePack.PackerConfig().withBufferSize(valueLength + 256).newBufferPacker()) {
            packer.packArrayHeader(FIELDS).packString(id);
            packBytes(packer, value);
            packer.packLong(timestampMs);
            packBytes(packer, key);
            packer.packMapHeader(headers.size());
            for (Map.Entry<String, byte[]> header : headers.entrySet()) {
                packer.packString(header.getKey());
                packBytes(packer, header.getValue());
            }
            packer.packString(origin);
            return packer.toByteArray();
        } catch (IOException e) {
            throw new UncheckedIOException(e); // a packer over memory does no input or output
        }
    }

    /**
     * The record that {@link #encode} or the Python side wrote. A text value is given as its UTF-8
     * bytes.
     *
     * @throws IllegalArgumentException when the bytes are no wire record, or the value is neither
     *     bytes nor text nor nil
     */
    public static WireRecord decode(byte[] data) {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(data)) {
            int fields = unpacker.unpackArrayHeader();
            if (fields != FIELDS) {
                throw new IllegalArgumentException(
                        "a wire record is an array of " + FIELDS + " fields, got " + fields);
            }
            String id = unpacker.unpackString();
            return new WireRecord(
                    id,
                    unpackValue(unpacker, id),
                    unpacker.unpackLong(),
                    unpackBytes(unpacker),
                    unpackHeaders(unpacker),
                    unpacker.unpackString());
        } catch (IOException | MessagePackException e) {
            throw new IllegalArgumentException("not a wire record: " + e.getMessage(), e);
        }
    }

    /** Whether the value is the map of one key that the Python side writes as a removal. */
    public static boolean isRemoval(byte[] data) {
        try (MessageUnpacker unpacker = MessagePack.newDefaultUnpacker(data)) {
            if (unpacker.unpackArrayHeader() != FIELDS) {
                return false;
            }
            unpacker.skipValue();
            return unpacker.getNextFormat().getValueType() == ValueType.MAP
                    && unpacker.unpackMapHeader() == 1
                    && unpacker.getNextFormat().getValueType() == ValueType.STRING
                    && unpacker.unpackString().equals(REMOVAL_KEY);
        } catch (IOException | MessagePackException e) {
            return false; // decode says what is wrong with it
        }
    }

    private static byte[] unpackValue(MessageUnpacker unpacker, String id) throws IOException {
        ValueType type = unpacker.getNextFormat().getValueType();
        if (type == ValueType.NIL || type == ValueType.BINARY || type == ValueType.STRING) {
            return unpackBytes(unpacker);
        }
        throw new IllegalArgumentException(
                "record '"
                        + id
                        + "': the value must be bytes, text or nil here, got "
                        + type.name().toLowerCase()
                        + "; encode it in a step before");
    }

    private static Map<String, byte[]> unpackHeaders(MessageUnpacker unpacker) throws IOException {
        int size = unpacker.unpackMapHeader();
        Map<String, byte[]> headers = new LinkedHashMap<>();
        for (int i = 0; i < size; i++) {
            headers.put(unpacker.unpackString(), unpackBytes(unpacker));
        }
        return headers;
    }

    static void packBytes(MessageBufferPacker packer, byte[] bytes) throws IOException {
        if (bytes == null) {
            packer.packNil();
            return;
        }
        packer.packBinaryHeader(bytes.length).writePayload(bytes);
    }

    /** The bytes of a bin or str, null for nil. */
    static byte[] unpackBytes(MessageUnpacker unpacker) throws IOException {
        ValueType type = unpacker.getNextFormat().getValueType();
        if (type == ValueType.NIL) {
            unpacker.unpackNil();
            return null;
        }
        int length =
                type == ValueType.STRING
                        ? unpacker.unpackRawStringHeader()
                        : unpacker.unpackBinaryHeader();
        return unpacker.readPayload(length);
    }
}
