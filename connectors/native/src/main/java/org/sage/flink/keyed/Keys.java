package org.sage.flink.keyed;

import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.flink.api.java.functions.KeySelector;
import org.msgpack.core.MessageFormat;
import org.sage.flink.wire.PackedNumber;
import org.sage.flink.wire.PackedReader;
import org.sage.flink.wire.RecordFields;

/**
 * Keys of records. Flink's key is the record's key with one character for each byte, so any bytes
 * are a key and Flink's own key groups apply.
 */
public final class Keys {

    /** A key is a part of ids, and of the state of each window. */
    static final int BYTES_MAX = 4_096;

    private static final byte TRUE = (byte) 0xc3;

    private Keys() {}

    /** Flink's key of a record's key. */
    public static String text(byte[] key) {
        return new String(key, StandardCharsets.ISO_8859_1);
    }

    /** The record's key of Flink's key. */
    public static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.ISO_8859_1);
    }

    /**
     * Why the record cannot be in a keyed step; empty where it can. The Python twin is {@code
     * sage_flink/flow/stateful/keys.py}.
     */
    public static String flaw(RecordFields.Found found) {
        return flaw(found, false);
    }

    /** The same where a step may take deletes of a key. */
    public static String flaw(RecordFields.Found found, boolean takesDeletes) {
        if (found.isDelete() && !takesDeletes) {
            return "is a delete: keyed steps take upserts only";
        }
        if (found.key() == null) {
            return "has no key: put .key_by(name, field) before this step";
        }
        return found.key().length <= BYTES_MAX ? "" : tooLong(found.key().length);
    }

    /**
     * The record's key from the MessagePack value of {@code field}.
     *
     * @throws IllegalArgumentException when it is no key; the message says why
     */
    public static byte[] of(byte[] packed, String field) {
        if (packed == null) {
            throw new IllegalArgumentException("it has no key: no value at '" + field + "'");
        }
        byte[] key = bytes(packed, field);
        if (key.length > BYTES_MAX) {
            throw new IllegalArgumentException(tooLong(key.length));
        }
        return key;
    }

    private static byte[] bytes(byte[] packed, String field) {
        return switch (MessageFormat.valueOf(packed[0]).getValueType()) {
            case STRING, BINARY -> new PackedReader(packed).bytes();
            case INTEGER -> PackedNumber.toText(packed).getBytes(StandardCharsets.US_ASCII);
            case BOOLEAN -> (packed[0] == TRUE ? "true" : "false").getBytes(StandardCharsets.US_ASCII);
            default ->
                    throw new IllegalArgumentException(
                            "it has no key: '"
                                    + field
                                    + "' must be text, bytes, a whole number or a boolean");
        };
    }

    private static String tooLong(int bytes) {
        return "its key has " + bytes + " bytes, at most " + BYTES_MAX + " are a key";
    }

    /** Selects Flink's key of a wire record; that of a record without a key is empty. */
    public static final class OfRecord implements KeySelector<byte[], String> {

        private static final long serialVersionUID = 1L;

        private transient RecordFields fields;

        @Override
        public String getKey(byte[] record) {
            if (fields == null) {
                fields = new RecordFields(List.of());
            }
            byte[] key = fields.read(record).key();
            return key == null ? "" : text(key);
        }
    }
}
