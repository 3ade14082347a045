package org.sage.flink.wire;

import java.io.Serializable;

/**
 * A field of records that has to be a vector.
 *
 * @param path as in {@link RecordFields}
 */
public record VectorField(String path, int dim) implements Serializable {

    /** Why the MessagePack of the field, or null, is no such vector; empty where it is one. */
    public String flaw(byte[] packed) {
        try {
            PackedVector.unit(packed, dim);
            return "";
        } catch (IllegalArgumentException e) {
            return "its field '" + path + "' " + e.getMessage();
        }
    }
}
