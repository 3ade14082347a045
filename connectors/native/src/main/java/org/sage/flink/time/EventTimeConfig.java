package org.sage.flink.time;

import java.io.IOException;
import java.io.Serializable;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.sage.flink.wire.RecordFields;

/**
 * Settings of {@link EventTimeOperator}, checked by {@code sage_flink.flow.stateful.nodes}.
 *
 * @param field path of the time in the value; empty: the record's own time
 * @param unit of a number in the field: s, ms, us or ns
 * @param outOfOrderMs how much later than a later record a record may arrive
 * @param idleMs without a record for this long, a partition does not hold the watermark
 * @param aheadMs how far in the future a record may be
 * @param sourceHasWatermarks whether watermarks of a source arrive here
 */
record EventTimeConfig(
        String step,
        String job,
        String run,
        String field,
        String unit,
        long outOfOrderMs,
        long idleMs,
        long aheadMs,
        boolean sourceHasWatermarks)
        implements Serializable {

    static EventTimeConfig of(String json) {
        try {
            JsonNode node = new ObjectMapper().readTree(json);
            return new EventTimeConfig(
                    node.get("step").asText(),
                    node.get("job").asText(),
                    node.get("run").asText(),
                    node.get("field").asText(),
                    node.get("unit").asText(),
                    node.get("out_of_order_ms").asLong(),
                    node.get("idle_ms").asLong(),
                    node.get("ahead_ms").asLong(),
                    node.get("source_has_watermarks").asBoolean());
        } catch (IOException e) {
            throw new IllegalArgumentException("the settings of event time are not JSON: " + json, e);
        }
    }

    /**
     * The event time of the record.
     *
     * @throws IllegalArgumentException when it has none
     */
    long timestampMs(RecordFields.Found found) {
        if (field.isEmpty()) {
            return TimeField.require(found.timestampMs());
        }
        byte[] packed = found.fields()[0];
        if (packed == null) {
            throw new IllegalArgumentException("it has no event time: no value at '" + field + "'");
        }
        try {
            return TimeField.millis(packed, unit);
        } catch (IllegalArgumentException e) {
            throw new IllegalArgumentException(
                    "it has no event time: '" + field + "' " + e.getMessage(), e);
        }
    }
}
