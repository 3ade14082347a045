package org.sage.flink.wire;

import java.io.Serializable;

/**
 * A field of records that has to be a vector.
 *
 * @param path as in {@link RecordFields}
 * @param isRequired whether a record without the field has a flaw
 */
public record VectorField(String path, int dim, boolean isRequired) implements Serializable {

    /** Why the MessagePack of the field, or null, is no such vector; empty where it is one. */
    public String flaw(byte[] packed) {
        if (packed == null && !isRequired) {
            return "";
        }
        try {
            PackedVector.unit(packed, dim);
            return "";
        } catch (IllegalArgumentException e) {
            return "its field '" + path + "' " + e.getMessage();
        }
    }
}
