package org.sage.flink.call;

import java.io.IOException;
import java.io.Serializable;
import java.util.HashSet;
import java.util.Set;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.JsonNode;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/**
 * How a call's requests are made, as {@code call_request} in {@code sage_flink/flow/call_requests.py}
 * makes them.
 *
 * @param step the name of the call
 * @param job the name of the job
 * @param template the body
 * @param tenant of a record without one of its own
 * @param priority of a record without one of its own
 * @param priorities that a record may have
 * @param freshnessMs the soft deadline after the record's time; null: none
 * @param cacheTtlS the age of an answer that may be reused; 0: none may
 */
record RequestConfig(
        String step,
        String job,
        RequestTemplate template,
        String tenant,
        String priority,
        Set<String> priorities,
        Long freshnessMs,
        int cacheTtlS)
        implements Serializable {

    private static final int LABEL_MAX = 200;

    static RequestConfig of(String json) {
        try {
            JsonNode node = new ObjectMapper().readTree(json);
            JsonNode freshness = node.path("freshness_ms");
            return new RequestConfig(
                    node.get("step").asText(),
                    node.get("job").asText(),
                    RequestTemplate.of(node.get("template")),
                    node.get("tenant").asText(),
                    node.get("priority").asText(),
                    priorities(node.get("priorities")),
                    freshness.isNumber() ? freshness.asLong() : null,
                    node.path("cache_ttl_s").asInt(0));
        } catch (IOException e) {
            throw new IllegalArgumentException("the settings of the requests are not JSON", e);
        }
    }

    private static Set<String> priorities(JsonNode names) {
        Set<String> found = new HashSet<>();
        names.forEach(name -> found.add(name.asText()));
        return found;
    }

    /** The name of the job as a header. */
    String label() {
        String label = job.codePoints()
                .map(point -> point >= ' ' && point <= '~' ? point : '_')
                .collect(StringBuilder::new, StringBuilder::appendCodePoint, StringBuilder::append)
                .toString();
        return label.substring(0, Math.min(LABEL_MAX, label.length()));
    }
}
