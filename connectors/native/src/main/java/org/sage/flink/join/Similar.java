package org.sage.flink.join;

import java.io.Serializable;
import java.util.List;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.sage.flink.wire.PackedVector;
import org.sage.flink.wire.RecordFields;
import org.sage.flink.wire.VectorField;

/**
 * Records whose vectors have a cosine similarity of at least {@code threshold}. The Python twin is
 * {@code sage_flink/flow/stateful/similar.py}.
 */
record Similar(VectorField field, double threshold) implements Serializable {

    /** The condition in this object; null where there is none. */
    static Similar of(JsonNode node) {
        return node.isObject()
                ? new Similar(
                        new VectorField(node.get("field").asText(), node.get("dim").asInt(), true),
                        node.get("threshold").asDouble())
                : null;
    }

    /** Finds the records that are similar to this one. */
    Query query(byte[] record) {
        return new Query(new RecordFields(List.of(field.path())), record);
    }

    /** A record that others are compared with. */
    final class Query {

        private final RecordFields fields;
        private final double[] vector;

        private Query(RecordFields fields, byte[] record) {
            this.fields = fields;
            this.vector = PackedVector.unit(fields.read(record).fields()[0], field.dim());
        }

        /** False for a record of a savepoint, taken when no vector was needed, that has none. */
        boolean matches(byte[] record) {
            double found = PackedVector.similarity(vector, fields.read(record).fields()[0]);
            return found >= threshold - PackedVector.ROUNDING;
        }
    }
}
