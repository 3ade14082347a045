package org.sage.flink.wire;

/** Wire records with another time, key or value; the rest of their bytes is copied. */
public final class RecordChange {

    /** Room for the header of a value that changes. */
    private static final int HEADER = 16;

    private RecordChange() {}

    /** The record {@code data}, in which {@code found} was found, at another time. */
    public static byte[] withTimestamp(byte[] data, RecordFields.Found found, long timestampMs) {
        PackedWriter writer = new PackedWriter(data.length + HEADER);
        writer.raw(data, 0, found.timestampFrom());
        writer.number(timestampMs);
        return writer.raw(data, found.timestampTo(), data.length).toByteArray();
    }

    /** The record {@code data}, in which {@code found} was found, with the value {@code packed}. */
    public static byte[] withValue(byte[] data, RecordFields.Found found, byte[] packed) {
        PackedWriter writer = new PackedWriter(data.length + packed.length);
        writer.raw(data, 0, found.valueFrom()).raw(packed, 0, packed.length);
        return writer.raw(data, found.valueTo(), data.length).toByteArray();
    }

    /** The upsert of {@code data}, in which {@code found} was found, with this value and key. */
    public static byte[] asMessage(
            byte[] data, RecordFields.Found found, byte[] value, byte[] key) {
        int valueLength = value == null ? 0 : value.length;
        PackedWriter writer = new PackedWriter(data.length + valueLength + key.length + HEADER);
        writer.raw(data, 0, found.valueFrom()).bytes(value);
        writer.raw(data, found.timestampFrom(), found.timestampTo()).bytes(key);
        writer.raw(data, found.keyTo(), found.kindFrom());
        return writer.string("upsert").string("").string("").toByteArray();
    }

    /** The record {@code data}, in which {@code found} was found, with another key. */
    public static byte[] withKey(byte[] data, RecordFields.Found found, byte[] key) {
        PackedWriter writer = new PackedWriter(data.length + key.length + HEADER);
        writer.raw(data, 0, found.timestampTo()).bytes(key);
        return writer.raw(data, found.keyTo(), data.length).toByteArray();
    }
}
