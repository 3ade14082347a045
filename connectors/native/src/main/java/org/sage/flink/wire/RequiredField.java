package org.sage.flink.wire;

import java.util.Map;
import org.msgpack.value.ValueType;

/**
 * Fields of a record's value that an operator needs. The words of a refusal are those of {@code
 * require_field} in {@code sage_flink/common/values.py}.
 */
public final class RequiredField {

    private static final Map<ValueType, String> PYTHON_TYPES =
            Map.of(
                    ValueType.NIL, "NoneType",
                    ValueType.STRING, "str",
                    ValueType.BINARY, "bytes",
                    ValueType.INTEGER, "int",
                    ValueType.FLOAT, "float",
                    ValueType.BOOLEAN, "bool",
                    ValueType.ARRAY, "list",
                    ValueType.MAP, "dict");

    private RequiredField() {}

    /**
     * A reader in front of the field's value.
     *
     * @param shown the name as a message shows it
     * @throws IllegalArgumentException the value is no map, or has no such field
     */
    public static PackedReader find(
            byte[] record, RecordFields.Found found, String name, String shown) {
        PackedReader reader = findOrNull(record, found, name);
        if (reader == null) {
            throw new IllegalArgumentException("field " + shown + " is missing");
        }
        return reader;
    }

    /**
     * A reader in front of the field's value; null: there is no such field.
     *
     * @throws IllegalArgumentException the value is no map
     */
    public static PackedReader findOrNull(byte[] record, RecordFields.Found found, String name) {
        PackedReader reader = at(record, found.valueFrom());
        if (reader.type() != ValueType.MAP) {
            throw new IllegalArgumentException(
                    "the value must be named fields, got " + typeName(reader.type()));
        }
        for (int left = reader.mapHeader(); left > 0; left--) {
            boolean isText = reader.type() == ValueType.STRING;
            if (isText && reader.string().equals(name)) {
                return reader;
            }
            if (!isText) {
                reader.skip();
            }
            reader.skip();
        }
        return null;
    }

    /** The refusal of a field that is not of the kind that the words say. */
    public static IllegalArgumentException other(String shown, String kind, ValueType type) {
        return new IllegalArgumentException(
                "field " + shown + " must be " + kind + ", got " + typeName(type));
    }

    /** A reader of the record from {@code position} on. */
    public static PackedReader at(byte[] record, int position) {
        PackedReader reader = new PackedReader(record);
        reader.advance(position);
        return reader;
    }

    /** The name of the type in Python, for a message. */
    public static String typeName(ValueType type) {
        return PYTHON_TYPES.getOrDefault(type, "Ext");
    }
}
