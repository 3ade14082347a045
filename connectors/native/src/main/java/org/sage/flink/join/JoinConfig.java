package org.sage.flink.join;

import java.io.IOException;
import java.io.Serializable;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.sage.flink.wire.FailedRecords;

/**
 * Settings of a join, checked by {@code sage_flink.flow.stateful.joins}.
 *
 * @param beforeMs how much earlier than the left record the right one may be
 * @param afterMs how much later than the left record the right one may be
 * @param outputDelayMs how far the watermark of the output is behind that of the inputs
 * @param leftAlone whether left records that met no other are emitted
 * @param rightAlone whether right records that met no other are emitted
 * @param similar what records that meet have in common in addition to their time; null: nothing
 */
record JoinConfig(
        FailedRecords failed,
        long beforeMs,
        long afterMs,
        long outputDelayMs,
        boolean leftAlone,
        boolean rightAlone,
        Similar similar)
        implements Serializable {

    static JoinConfig of(String json) {
        try {
            JsonNode node = new ObjectMapper().readTree(json);
            String alone = node.get("emitted_alone").toString();
            return new JoinConfig(
                    new FailedRecords(
                            node.get("step").asText(),
                            node.get("job").asText(),
                            node.get("run").asText()),
                    node.get("before_ms").asLong(),
                    node.get("after_ms").asLong(),
                    node.get("output_delay_ms").asLong(),
                    alone.contains("\"left\""),
                    alone.contains("\"right\""),
                    Similar.of(node.path("similar")));
        } catch (IOException e) {
            throw new IllegalArgumentException("the settings of a join are not JSON: " + json, e);
        }
    }

    String step() {
        return failed.step();
    }

    /** How far the watermark is ahead of a record when no record that is not late can meet it. */
    long spanMs() {
        return beforeMs + afterMs;
    }
}
