package org.sage.flink.wire;

import org.msgpack.value.ValueType;

/** Wire records with another time, key, value or field; the rest of their bytes is copied. */
public final class RecordChange {

    /** Room for the header of a value that changes. */
    private static final int HEADER = 16;

    private static final int FIELDS = 9;

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

    /** An upsert derived from {@code data}, as {@code Record.child} in Python. */
    public static byte[] child(byte[] data, RecordFields.Found found, String id, byte[] packed) {
        PackedWriter writer = new PackedWriter(data.length + packed.length + HEADER);
        writer.arrayHeader(FIELDS);
        writer.string(id).raw(packed, 0, packed.length);
        writer.raw(data, found.timestampFrom(), found.kindFrom());
        return writer.string("upsert").string("").string("").toByteArray();
    }

    /**
     * The record {@code data} whose value has {@code packed} in the field {@code name}: in the place
     * of a field of that name, else behind the others.
     *
     * @throws IllegalArgumentException when the value is not a map
     */
    public static byte[] withField(byte[] data, String name, byte[] packed) {
        PackedReader reader = new PackedReader(data);
        reader.arrayHeader();
        reader.skip();
        int valueFrom = reader.position();
        if (reader.type() != ValueType.MAP) {
            throw new IllegalArgumentException(
                    "its value must be a map, to take the field '" + name + "'");
        }
        int size = reader.mapHeader();
        int fieldsFrom = reader.position();
        int[] before = find(reader, size, name);
        int valueTo = reader.position();
        PackedWriter writer =
                new PackedWriter(data.length + packed.length + name.length() + HEADER);
        writer.raw(data, 0, valueFrom);
        if (before == null) {
            writer.mapHeader(size + 1);
            writer.raw(data, fieldsFrom, valueTo).string(name).raw(packed, 0, packed.length);
        } else {
            writer.mapHeader(size);
            writer.raw(data, fieldsFrom, before[0]).raw(packed, 0, packed.length);
            writer.raw(data, before[1], valueTo);
        }
        return writer.raw(data, valueTo, data.length).toByteArray();
    }

    /** Moves behind the fields; where the value of one begins and ends, null: there is none. */
    private static int[] find(PackedReader reader, int size, String name) {
        int[] found = null;
        for (int i = 0; i < size; i++) {
            boolean isText = reader.type() == ValueType.STRING;
            String key = isText ? reader.string() : null;
            if (!isText) {
                reader.skip();
            }
            int from = reader.position();
            reader.skip();
            if (name.equals(key)) {
                found = new int[] {from, reader.position()};
            }
        }
        return found;
    }

    /** The record {@code data}, in which {@code found} was found, with another key. */
    public static byte[] withKey(byte[] data, RecordFields.Found found, byte[] key) {
        PackedWriter writer = new PackedWriter(data.length + key.length + HEADER);
        writer.raw(data, 0, found.timestampTo()).bytes(key);
        return writer.raw(data, found.keyTo(), data.length).toByteArray();
    }
}
