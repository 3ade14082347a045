package org.sage.flink.window;

import java.io.IOException;
import java.io.Serializable;
import java.time.Duration;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;
import org.apache.flink.streaming.api.windowing.assigners.EventTimeSessionWindows;
import org.apache.flink.streaming.api.windowing.assigners.SlidingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.assigners.TumblingEventTimeWindows;
import org.apache.flink.streaming.api.windowing.assigners.WindowAssigner;
import org.apache.flink.streaming.api.windowing.windows.TimeWindow;

/**
 * Settings of a window step, checked by {@code sage_flink.flow.stateful.nodes}.
 *
 * @param kind tumbling, sliding, session, count or global
 * @param sizeMs length of a window; the gap of a session
 * @param everyMs from the start of a sliding window to that of the next one
 * @param recordsMax records of a count window, 0 for any other
 * @param earlyEveryMs event time between early results, 0 for none
 * @param earlyEveryRecords records between early results, 0 for none
 */
record WindowConfig(
        String step,
        String job,
        String run,
        String kind,
        long sizeMs,
        long everyMs,
        long recordsMax,
        long latenessMs,
        long earlyEveryMs,
        long earlyEveryRecords,
        Aggregates aggregates)
        implements Serializable {

    static WindowConfig of(String json) {
        try {
            JsonNode node = new ObjectMapper().readTree(json);
            return new WindowConfig(
                    node.get("step").asText(),
                    node.get("job").asText(),
                    node.get("run").asText(),
                    node.get("kind").asText(),
                    node.get("size_ms").asLong(),
                    node.get("every_ms").asLong(),
                    node.get("records_max").asLong(),
                    node.get("lateness_ms").asLong(),
                    node.get("early_every_ms").asLong(),
                    node.get("early_every_records").asLong(),
                    Aggregates.of(node.get("aggregates").toString()));
        } catch (IOException e) {
            throw new IllegalArgumentException("the settings of a window are not JSON: " + json, e);
        }
    }

    boolean hasEarlyResults() {
        return earlyEveryMs > 0 || earlyEveryRecords > 0;
    }

    /** Whether the windows end with time. */
    boolean isTimed() {
        return !kind.equals("count") && !kind.equals("global");
    }

    /** The windows that end with time. */
    WindowAssigner<Object, TimeWindow> assigner() {
        Duration size = Duration.ofMillis(sizeMs);
        return switch (kind) {
            case "tumbling" -> TumblingEventTimeWindows.of(size);
            case "sliding" -> SlidingEventTimeWindows.of(size, Duration.ofMillis(everyMs));
            case "session" -> EventTimeSessionWindows.withGap(size);
            default -> throw new IllegalArgumentException("there is no window " + kind);
        };
    }
}
