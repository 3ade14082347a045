package org.sage.flink.counters;

import java.io.UncheckedIOException;
import java.util.Map;
import org.apache.flink.api.common.accumulators.Accumulator;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonProcessingException;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.databind.ObjectMapper;

/**
 * The counts of an {@link JobCountersOperator} at one moment, as JSON: {@code {"counts": {...}, "opening":
 * {...}}}. One value and not an accumulator a counter, because heartbeats read them from a thread of
 * their own and would see some counters before and some after.
 */
public final class CountersAccumulator implements Accumulator<String, String> {

    private static final long serialVersionUID = 1L;
    private static final ObjectMapper JSON = new ObjectMapper();

    private volatile String stated = "";

    /** Let this be what is known from now on. */
    void state(Map<String, Long> counts, Map<String, Long> opening) {
        try {
            stated = JSON.writeValueAsString(Map.of("counts", counts, "opening", opening));
        } catch (JsonProcessingException e) {
            throw new UncheckedIOException(e); // maps of text and numbers are always JSON
        }
    }

    @Override
    public void add(String value) {
        stated = value;
    }

    @Override
    public String getLocalValue() {
        return stated;
    }

    @Override
    public void resetLocal() {
        stated = "";
    }

    /** The other's, where this one knows nothing: there is one subtask that does. */
    @Override
    public void merge(Accumulator<String, String> other) {
        if (stated.isEmpty()) {
            stated = other.getLocalValue();
        }
    }

    @Override
    public CountersAccumulator clone() {
        CountersAccumulator copy = new CountersAccumulator();
        copy.stated = stated;
        return copy;
    }
}
